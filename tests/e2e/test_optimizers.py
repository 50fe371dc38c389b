"""Every optimizer in a whole run: its states go through each tier, checkpoint and resume, and its rows to a replica."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from pipeline.optim import OptimizerOptions
from tests.cuda.cases import OPTIMIZERS
from tests.e2e.followed import assert_replica_is
from tests.e2e.jobs import RAGGED, assert_same_bits, run_job

TIERS = {
    "memory": ("store.l1_rows=150",),
    "disk": ("store.l1_rows=150", "store.ssd.segment_bytes=8192", "store.ssd.extent_bytes=4096"),
}


def job_of(options: OptimizerOptions) -> dict[str, Any]:
    job = copy.deepcopy(RAGGED)
    for table in job["tables"].values():
        table["optimizer"] = options.model_dump()
    return job


@pytest.mark.parametrize("options", OPTIMIZERS, ids=lambda options: options.kind)
def test_bits_depend_on_no_tier_and_on_no_resume(tmp_path: Path, options: OptimizerOptions) -> None:
    job = job_of(options)
    whole = run_job(tmp_path / "whole", job, "store.l1_rows=4096", "stages.prefetch.lookahead=1")
    for name, tiers in TIERS.items():
        run_job(tmp_path / name, job, *tiers, "run.steps=17")
        resumed = run_job(tmp_path / name, job, *tiers, resume=True)
        assert resumed.summary["resumed_from"] == 17
        assert resumed.summary["l1"]["evictions"] > 0
        assert_same_bits(whole, resumed)
        assert_replica_is(resumed)
