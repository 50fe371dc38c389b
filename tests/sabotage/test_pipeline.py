"""Each sabotage of the pipeline as a whole is caught by the comparison that proves G1 and G2."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.flow import StageError
from tests.e2e.followed import assert_replica_equals
from tests.e2e.jobs import RAGGED, Job, assert_same_bits, run_job
from tests.e2e.test_exact import RandomDelays
from tests.sabotage.caught import assert_caught
from tests.sabotage.pipeline import SABOTAGES


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return run_job(tmp_path_factory.mktemp("sabotage") / "base", RAGGED, "store.l1_rows=4096")


def check(tmp_path: Path, base: Job) -> None:
    """The smallest L1 and a few random delays, with the stream on: the same bits, and a replica that equals them."""
    job = run_job(tmp_path / "run", RAGGED, f"store.l1_rows={base.least_l1() + 6}", perturb=RandomDelays(1))
    assert_same_bits(base, job)
    assert_replica_equals(job)


def test_the_check_passes_on_the_product(tmp_path: Path, base: Job) -> None:
    check(tmp_path, base)


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_caught(tmp_path: Path, base: Job, name: str) -> None:
    assert_caught(SABOTAGES[name], lambda: check(tmp_path, base), StageError, name=name)
