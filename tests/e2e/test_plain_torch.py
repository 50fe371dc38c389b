"""The whole pipeline, with a tiny L1 and lookahead 8, against a plain torch model on the same batches."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.rows.initial import initial_weights
from tests.e2e.jobs import RAGGED, run_job
from tests.e2e.plain_torch import PlainFeature, PlainTables, train_plainly
from tests.e2e.ragged import RaggedOptions, make_batch
from tests.support.grids import grid

STEPS = 50


def config_of(pooling: str, weighted: bool, optimizer: str, seed: int) -> dict[str, Any]:
    config = copy.deepcopy(RAGGED)
    for table in config["tables"].values():
        table["optimizer"] = {"kind": optimizer, "lr": 0.05}
    for name, feature in config["features"].items():
        config["features"][name] = {**feature, "pooling": pooling}
    config["stages"]["source"] |= {"weighted": weighted, "seed": seed, "batches": STEPS}
    config["stages"]["prefetch"]["lookahead"] = 8
    config["dense_optimizer"] = {"use": "SGD", "lr": 0.05}
    return config


@pytest.mark.parametrize(
    ("pooling", "weighted", "optimizer"),
    grid(
        ["sum", "mean", "none"],
        [False, True],
        ["sgd", "rowwise_adagrad"],
        always=[
            ("sum", False, "rowwise_adagrad"),
            ("sum", True, "sgd"),
            ("mean", False, "sgd"),
            ("mean", True, "rowwise_adagrad"),
            ("none", False, "rowwise_adagrad"),
            ("none", True, "sgd"),
        ],
    ),
)
def test_pipeline_agrees_with_plain_torch(tmp_path: Path, pooling: str, weighted: bool, optimizer: str) -> None:
    seed = int(np.random.default_rng().integers(2**31))
    config = config_of(pooling, weighted, optimizer, seed)
    job = run_job(tmp_path / "run", config)
    assert job.summary["l1"]["evictions"] > 0
    options = RaggedOptions(**{key: value for key, value in config["stages"]["source"].items() if key != "use"})
    batches = [make_batch(options, k) for k in range(STEPS)]
    features = [PlainFeature(name, f.get("table", name), pooling) for name, f in config["features"].items()]
    specs = {spec.name: spec for spec in job.trainer.plan.specs}
    ids = {
        table: np.unique(
            np.concatenate([b.features[f.name].ids_n for b in batches for f in features if f.table == table])
        )
        for table in specs
    }
    initial = {table: initial_weights(spec, ids[table]) for table, spec in specs.items()}
    tables = PlainTables(ids, initial, optimizer, 0.05, eps=1e-8)
    dense, log_loss = train_plainly(batches, tables, features, initial_dense(job), dense_lr=0.05)
    for table, exported in job.tables().items():
        positions = np.searchsorted(ids[table], exported["ids"])
        assert np.array_equal(ids[table][positions], exported["ids"])
        plain = tables.tables[table].weight.detach().numpy()[positions]
        assert np.abs(plain - exported["weights"]).max() <= 1e-6, f"{table}, seed {seed}"
    assert abs(job.summary["train_log_loss"] - log_loss) <= 1e-6, (
        f"each batch counts once, before its step; seed {seed}"
    )
    for name, value in job.dense().items():
        assert np.abs(dense[name] - value).max() <= 1e-6, f"{name}, seed {seed}"


def initial_dense(job: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The dense weights a run of the same seed begins with."""
    from pipeline.session.dense_side import initial_model

    return {name: value.numpy().copy() for name, value in initial_model(job.trainer.plan).state_dict().items()}
