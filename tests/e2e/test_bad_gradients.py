"""A gradient that is no number ends a run before anyone sees its step, or leaves its row alone and is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.session.inspect_rows import newest_checkpoint
from pipeline.store.errors import BadGradients
from tests.e2e.followed import assert_replica_equals
from tests.e2e.jobs import RAGGED, assert_same_bits, run_job
from tests.e2e.tiny_model import TinyModel

BAD_CALL = 25


class SometimesNan(TinyModel):
    """Gives the bags of feature ``wide`` a gradient with a NaN at one step, and all others theirs."""

    calls = 0

    def forward(self, features, dense_bd):  # type: ignore[no-untyped-def]
        type(self).calls += 1
        if type(self).calls == BAD_CALL:
            features.pooled_bs.register_hook(_poison)
        return super().forward(features, dense_bd)


def _poison(gradient_bs: torch.Tensor) -> torch.Tensor:
    poisoned = gradient_bs.clone()
    poisoned[0, -1] = float("nan")  # the last feature is ``wide``
    return poisoned


@pytest.fixture(autouse=True)
def first_call() -> None:
    SometimesNan.calls = 0


JOB = {**RAGGED, "model": {"use": "tests.e2e.test_bad_gradients:SometimesNan"}}
KEEP = ("checkpoint.every=4 steps", "stages.stream.every=1 steps", "stages.prefetch.lookahead=1")


def test_a_run_stops_and_names_table_and_step_and_its_checkpoint_is_whole(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"step \d+: the gradient of rows") as caught:
        run_job(tmp_path / "run", JOB, *KEEP)
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, BadGradients):
        error = error.__cause__
    assert isinstance(error, BadGradients)
    assert error.step >= BAD_CALL  # steps without samples call no model
    assert list(error.rows) == ["wide"]
    assert newest_checkpoint(tmp_path / "run").manifest.step < error.step
    whole = run_job(tmp_path / "whole", RAGGED, *KEEP)
    resumed = run_job(tmp_path / "run", RAGGED, *KEEP, resume=True)
    assert_same_bits(whole, resumed)
    assert_replica_equals(resumed)


def test_a_run_may_leave_such_rows_alone_and_counts_them(tmp_path: Path) -> None:
    run = run_job(tmp_path / "run", JOB, *KEEP, "store.bad_gradients=skip", "run.steps=30")
    counted = run.summary["store"]["bad_gradients"]
    assert list(counted) == ["wide"]
    assert counted["wide"] >= 1
    for exported in run.tables().values():
        assert np.isfinite(exported["weights"]).all()
        assert np.isfinite(exported["state_momentum"]).all()
    assert_replica_equals(run)
