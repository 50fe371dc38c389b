"""``movielens.yaml`` reaches the held-out AUC of plain torch with the same model, rows, batches and optimizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.flow import find_stage
from pipeline.optim import RowwiseAdagradOptions
from pipeline.rows.initial import initial_weights
from pipeline.session.dense_side import initial_model
from stages.items import RawBatch
from tests.conftest import real_data
from tests.e2e.jobs import Job, run_job
from tests.e2e.plain_torch import PlainDlrm, PlainFeature, PlainTables, exact_auc, train_dlrm_plainly
from tests.stages.driving import drive

TOLERANCE = 0.002


def batches_of(source: dict[str, Any], seed: int) -> list[RawBatch]:
    """What a source of the config yields, read without a pipeline."""
    options = dict(source)
    made = find_stage(options.pop("use"))
    return drive(lambda: made(made.Options.model_validate(options)), seed=seed).batches  # type: ignore[return-value, arg-type]


def plain_auc(job: Job) -> float:
    """Train on the config's batches and score its held-out ones, in plain torch."""
    plan, settings = job.trainer.plan, job.trainer.plan.settings
    stages, seed = settings.stages, settings.run.seed
    train, test = batches_of(stages["source"] or {}, seed), batches_of((stages["eval"] or {})["source"], seed)
    features = [PlainFeature(name, settings.table_of(name), f.pooling) for name, f in settings.features.items()]
    ids = {
        spec.name: np.unique(
            np.concatenate([b.features[f.name].ids_n for b in train + test for f in features if f.table == spec.name])
        )
        for spec in plan.specs
    }
    options = settings.tables[plan.specs[0].name].optimizer
    assert isinstance(options, RowwiseAdagradOptions)
    assert all(table.optimizer == options for table in settings.tables.values())
    initial = {spec.name: initial_weights(spec, ids[spec.name]) for spec in plan.specs}
    tables = PlainTables(ids, initial, options.kind, options.lr, options.eps)
    model = PlainDlrm({name: value.numpy() for name, value in initial_model(plan).state_dict().items()})
    assert settings.dense_optimizer.use == "Adagrad"
    assert not settings.dense_optimizer.options
    optimizer = torch.optim.Adagrad(model.parameters(), lr=settings.dense_optimizer.lr)
    train_dlrm_plainly(train, tables, features, model, optimizer)
    with torch.no_grad():
        logits = [model([tables.pooled(batch, feature) for feature in features]) for batch in test]
    return exact_auc(torch.cat(logits).numpy(), np.concatenate([batch.labels_b for batch in test]))


@pytest.mark.parametrize("epochs", [1, pytest.param(2, marks=pytest.mark.long)])
def test_movielens_reaches_the_auc_of_plain_torch(tmp_path: Path, epochs: int) -> None:
    """The shipped job reads the log twice."""
    real_data("ml-1m-half")
    cache = tmp_path / "cache"
    job = run_job(
        tmp_path / "run",
        "movielens",
        f"stages.source.epochs={epochs}",
        f"stages.source.prepare.cache_dir={cache}",
        f"stages.eval.source.prepare.cache_dir={cache}",
    )
    assert job.summary["samples"] == epochs * 390_120
    assert job.summary["evals"][-1]["samples"] == 97_530
    expected = plain_auc(job)
    assert expected > 0.65, "the reference has learned nothing, so it proves nothing"
    assert abs(job.summary["eval_auc"] - expected) <= TOLERANCE
