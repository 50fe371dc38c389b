"""Every shipped config runs: quickstart anywhere, the others on their real logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import real_data
from tests.e2e.jobs import run_job

LOGS = {"globo": "globo", "brunch": "brunch", "movielens": "ml-1m-half", "criteo": "criteo"}
FIXED = {
    "run": {"dir"},
    "batch": 2048,
    "dim": 64,
    "top_mlp": [256, 128, 1],
    "bottom_mlp": [256, 64],
    "per_positive": 4,
    "window": 100_000,
}


def test_quickstart_learns_in_a_cache_smaller_than_its_tables(tmp_path: Path) -> None:
    job = run_job(tmp_path / "run", "quickstart", "run.steps=150")
    assert job.summary["steps"] == 150
    assert job.summary["train_auc"] > 0.55
    assert job.summary["cuts"] > 0
    assert job.summary["freshness_ms"]["p99"] > 0


@pytest.mark.parametrize("config", LOGS)
def test_a_config_runs_on_its_real_log(tmp_path: Path, config: str) -> None:
    real_data(LOGS[config])
    job = run_job(tmp_path / "run", config, "run.steps=12")
    assert job.summary["steps"] == 12 or config == "criteo"
    assert job.summary["samples"] > 0
    assert job.summary["rows_streamed"] > 0
    assert json.loads((job.dir / "summary.json").read_text())["lost"] == 0


@pytest.mark.parametrize("config", ["globo", "brunch"])
def test_the_benchmarked_configs_are_as_their_figures_say(config: str) -> None:
    from pipeline.config import load
    from pipeline.session.settings import Settings

    settings = load([config], [], Settings).settings
    negatives = settings.stages["negatives"] or {}
    assert negatives["batch_size"] == FIXED["batch"]
    assert negatives["per_positive"] == FIXED["per_positive"]
    assert negatives.get("draw", "popularity") == "popularity"
    assert negatives.get("window", FIXED["window"]) == FIXED["window"]
    assert {table.dim for table in settings.tables.values()} == {FIXED["dim"]}
    assert settings.model.options["top_mlp"] == FIXED["top_mlp"]
    assert settings.model.options["bottom_mlp"] == FIXED["bottom_mlp"]
