"""Every optimizer in a whole run: its states go through each tier, checkpoint and resume, and its rows to a replica."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.optim import (
    AdamOptions,
    LambOptions,
    OptimizerOptions,
    PartialRowwiseAdamOptions,
    RowwiseAdagradOptions,
    SgdOptions,
)
from tests.cuda.cases import OPTIMIZERS
from tests.e2e.followed import assert_replica_equals
from tests.e2e.jobs import RAGGED, assert_same_bits, run_job
from tests.support.grids import grid

TIERS = {
    "memory": ("store.l1_rows=150",),
    "disk": ("store.l1_rows=150", "store.ssd.segment_bytes=8192", "store.ssd.extent_bytes=4096"),
}


KEPT: dict[str, tuple[OptimizerOptions, dict[str, Any]]] = {
    "fp16": (SgdOptions(lr=0.1), {"weights": "fp16"}),
    "fp16-nearest": (RowwiseAdagradOptions(lr=0.1), {"weights": "fp16", "rounding": "nearest"}),
    "fp16-bf16": (AdamOptions(max_norm=0.5), {"weights": "fp16", "states": "bf16"}),
    "bf16": (RowwiseAdagradOptions(max_gradient=1e-3), {"weights": "bf16"}),
    "bf16-bf16": (AdamOptions(rowwise_bias_correction=True), {"weights": "bf16", "states": "bf16"}),
    "fp32-bf16": (PartialRowwiseAdamOptions(), {"states": "bf16"}),
    "schedule": (
        LambOptions(),
        {"schedule": {"use": "step", "warmup_steps": 5, "options": {"every": 10, "factor": 0.3}}},
    ),
}


def job_of(options: OptimizerOptions, kept: Mapping[str, Any] | None = None) -> dict[str, Any]:
    job = copy.deepcopy(RAGGED)
    for table in job["tables"].values():
        table |= {"optimizer": options.model_dump(), **(kept or {})}
    return job


@pytest.mark.parametrize(
    ("options", "tiers"),
    grid(OPTIMIZERS, list(TIERS), always=[*((options, "disk") for options in OPTIMIZERS), (OPTIMIZERS[-1], "memory")]),
    ids=lambda value: getattr(value, "kind", value),
)
def test_bits_depend_on_no_tier_and_on_no_resume(tmp_path: Path, options: OptimizerOptions, tiers: str) -> None:
    check_bits(tmp_path, job_of(options), tiers)


@pytest.mark.parametrize(
    ("kept", "tiers"),
    grid(list(KEPT), list(TIERS), always=[*((kept, "disk") for kept in KEPT), ("fp16", "memory")]),
)
def test_nor_do_those_of_narrow_rows_and_of_rates_that_change(tmp_path: Path, kept: str, tiers: str) -> None:
    check_bits(tmp_path, job_of(*KEPT[kept]), tiers)


def test_neighbours_in_a_frame_may_keep_their_weights_in_other_types(tmp_path: Path) -> None:
    job = job_of(RowwiseAdagradOptions(lr=0.1))
    job["tables"]["wide"] |= {"dim": job["tables"]["shared"]["dim"], "weights": "fp16"}
    check_bits(tmp_path, job, "memory")


def check_bits(tmp_path: Path, job: dict[str, Any], tiers: str) -> None:
    whole = run_job(tmp_path / "whole", job, "store.l1_rows=4096", "stages.prefetch.lookahead=1")
    run_job(tmp_path / "run", job, *TIERS[tiers], "run.steps=17")
    resumed = run_job(tmp_path / "run", job, *TIERS[tiers], resume=True)
    assert resumed.summary["resumed_from"] == 17
    assert resumed.summary["l1"]["evictions"] > 0
    assert_same_bits(whole, resumed)
    assert_replica_equals(resumed)
