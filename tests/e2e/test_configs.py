"""The shipped job that needs no data learns something."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.jobs import run_job


def test_quickstart_learns_in_a_cache_smaller_than_its_tables(tmp_path: Path) -> None:
    job = run_job(tmp_path / "run", "quickstart", "run.steps=150")
    assert job.summary["steps"] == 150
    assert job.summary["train_auc"] > 0.55
    assert job.summary["cuts"] > 0
    assert job.summary["freshness_ms"]["p99"] > 0
