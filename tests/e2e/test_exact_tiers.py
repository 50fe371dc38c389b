"""G1 on real logs with rows on disk: the same bits however small L1 and the memory over the disk are, however far prefetch looks."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import pytest

from pipeline.store.cache_size import bytes_for
from tests.e2e.jobs import Job, assert_same_bits, run_job
from tests.e2e.real_jobs import BRUNCH, GLOBO, RealJob, real_job

L1_SHARES, LOOKAHEADS = (0.02, 0.1, 1.0), (1, 4, 32)
"""L1 as a share of the rows that the run touches; batches ahead."""
DRAM_SHARES = {"no memory": None, "little memory": 0.05, "much memory": 1.2}
"""Memory over the disk as a share of those rows."""
GRID = list(product(L1_SHARES, DRAM_SHARES, LOOKAHEADS))
IN_CI = [(0.02, "no memory", 32), (0.02, "little memory", 4), (0.1, "much memory", 1), (1.0, "no memory", 4)]
DISK = ("store.ssd.segment_bytes=65536", "store.ssd.extent_bytes=16384")
"""Segments so small that they are compacted over and over."""


def run_from_disk(directory: Path, real: RealJob, l1_share: float, memory: str, lookahead: int) -> Job:
    """The same job with its rows on disk, and the stream as it is shipped."""
    l1_rows, dram_share = math.floor(l1_share * real.num_rows), DRAM_SHARES[memory]
    assert l1_rows >= real.base.least_l1(), "the smallest L1 does not hold a batch: take more steps"
    tiers = [f"store.l1_rows={l1_rows}", f"stages.prefetch.lookahead={lookahead}", *DISK]
    if dram_share is not None:
        dram_bytes = bytes_for(real.base.trainer.plan.specs, math.ceil(dram_share * real.num_rows))
        tiers.append(f"store.dram_bytes={dram_bytes}")
    return run_job(directory, real.config, *real.overrides, *tiers)


def assert_rows_were_there(job: Job, l1_share: float, memory: str) -> None:
    """Rows left L1 and lay where they were meant to lie, so that the comparison says something about these tiers."""
    store = job.summary["store"]
    assert store["tier"] == ("ssd" if memory == "no memory" else "dram over ssd")
    assert (job.summary["l1"]["evictions"] > 0) == (l1_share < 1)
    if l1_share < 1:
        assert store["ssd"]["rows"] > 0, "the last checkpoint saves all"
        assert store["ssd"]["compacted_rows"] > 0 or memory != "no memory"
    if l1_share < 1 and memory != "no memory":
        assert store["dram"]["hits"] > 0
        assert (store["dram"]["written_back"] > 0) == (memory != "much memory")


def check(directory: Path, real: RealJob, l1_share: float, memory: str, lookahead: int) -> None:
    job = run_from_disk(directory, real, l1_share, memory, lookahead)
    assert_rows_were_there(job, l1_share, memory)
    assert_same_bits(real.base, job)


@pytest.mark.parametrize(("l1_share", "memory", "lookahead"), IN_CI)
def test_globo_from_the_disk_gives_the_same_bits(
    tmp_path: Path, globo: RealJob, l1_share: float, memory: str, lookahead: int
) -> None:
    """Each size of L1, each amount of memory and each lookahead at least once."""
    check(tmp_path / "run", globo, l1_share, memory, lookahead)


@pytest.fixture(scope="module", params=[("globo", GLOBO), ("brunch", BRUNCH)], ids=["globo", "brunch"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RealJob:
    config, overrides = request.param
    return real_job(tmp_path_factory.mktemp(config), config, overrides)


@pytest.mark.long
@pytest.mark.parametrize(("l1_share", "memory", "lookahead"), GRID)
def test_every_job_from_the_disk_gives_the_same_bits_in_the_long_form(
    tmp_path: Path, real: RealJob, l1_share: float, memory: str, lookahead: int
) -> None:
    check(tmp_path / "run", real, l1_share, memory, lookahead)
