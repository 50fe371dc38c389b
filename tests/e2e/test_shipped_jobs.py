"""The shipped jobs: each can be planned anywhere, and runs on its real log where that is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import load, shipped_names
from pipeline.session.plan import make_plan
from pipeline.session.settings import Settings
from tests.conftest import real_data
from tests.e2e.jobs import run_job

LOGS = {
    "globo": "globo",
    "brunch": "brunch",
    "larger_than_memory": "brunch",
    "movielens": "ml-1m-half",
    "criteo": "criteo",
}
FIXED = ("globo", "brunch")


def test_these_jobs_are_shipped() -> None:
    assert {"quickstart", *LOGS} <= set(shipped_names())


@pytest.mark.parametrize("name", ["quickstart", *LOGS])
def test_each_job_can_be_planned(name: str, tmp_path: Path) -> None:
    plan = make_plan(load([name], [f"run.dir={tmp_path}"], Settings))
    source = plan.graph.stages[0].options
    assert set(plan.features.names) == set(source.features)  # type: ignore[attr-defined]
    assert sum(table.dim for table in plan.settings.tables.values()) > 0


@pytest.mark.parametrize("name", FIXED)
def test_the_figures_settings_are_fixed(name: str) -> None:
    settings = load([name], [], Settings).settings
    assert {table.dim for table in settings.tables.values()} == {64}
    assert settings.model.options == {"bottom_mlp": [256, 64], "top_mlp": [256, 128, 1]}
    drawn = settings.stages["negatives"]
    assert drawn is not None
    assert (drawn["batch_size"], drawn["per_positive"], drawn["draw"], drawn["window"]) == (
        2048,
        4,
        "popularity",
        100_000,
    )


@pytest.mark.parametrize("name", LOGS)
def test_each_job_runs_on_its_log(name: str, tmp_path: Path) -> None:
    real_data(LOGS[name])
    cache = [f"stages.{stage}.prepare.cache_dir={tmp_path}/cache" for stage in ("source", "eval.source")]
    job = run_job(tmp_path / "run", name, "run.steps=12", *(cache if name == "movielens" else []))
    batch = {"criteo": 256, "movielens": 1024}.get(name, 2048)
    assert (job.summary["steps"], job.summary["samples"]) == (12, 12 * batch)
    assert (job.summary["skipped"], job.summary["lost"]) == (0, 0)
    assert job.summary["rows_streamed"] > 0
    assert 0.4 < job.summary["train_auc"] < 1


@pytest.mark.long
def test_tables_ten_times_larger_than_memory(tmp_path: Path) -> None:
    real_data("brunch")
    job = run_job(tmp_path / "run", "larger_than_memory")
    specs, store = job.trainer.plan.specs, job.trainer.plan.settings.store
    assert store.dram_bytes is not None
    row_bytes = max(spec.layout.row_bytes for spec in specs)
    rows = sum(job.summary["store"]["tier_rows"].values())
    assert rows * row_bytes >= 10 * (store.l1_rows * row_bytes + store.dram_bytes)
