"""Every optimizer in a whole run: its states go through each tier, checkpoint and resume, and its rows to a replica."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from pipeline.optim import OptimizerOptions
from tests.cuda.cases import OPTIMIZERS
from tests.e2e.followed import assert_replica_equals
from tests.e2e.jobs import RAGGED, assert_same_bits, run_job
from tests.support.grids import grid

TIERS = {
    "memory": ("store.l1_rows=150",),
    "disk": ("store.l1_rows=150", "store.ssd.segment_bytes=8192", "store.ssd.extent_bytes=4096"),
}


def job_of(options: OptimizerOptions) -> dict[str, Any]:
    job = copy.deepcopy(RAGGED)
    for table in job["tables"].values():
        table["optimizer"] = options.model_dump()
    return job


@pytest.mark.parametrize(
    ("options", "tiers"),
    grid(OPTIMIZERS, list(TIERS), always=[*((options, "disk") for options in OPTIMIZERS), (OPTIMIZERS[-1], "memory")]),
    ids=lambda value: getattr(value, "kind", value),
)
def test_bits_depend_on_no_tier_and_on_no_resume(tmp_path: Path, options: OptimizerOptions, tiers: str) -> None:
    job = job_of(options)
    whole = run_job(tmp_path / "whole", job, "store.l1_rows=4096", "stages.prefetch.lookahead=1")
    run_job(tmp_path / "run", job, *TIERS[tiers], "run.steps=17")
    resumed = run_job(tmp_path / "run", job, *TIERS[tiers], resume=True)
    assert resumed.summary["resumed_from"] == 17
    assert resumed.summary["l1"]["evictions"] > 0
    assert_same_bits(whole, resumed)
    assert_replica_equals(resumed)
