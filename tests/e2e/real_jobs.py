"""Shipped jobs on their real logs, run once with everything in memory: what runs on other tiers are compared with.

The smallest L1 of interest is a fiftieth of the rows that a run touches, and it has to hold one batch. A shipped batch of globo needs at
most 586 rows, and 200 of them touch 31,546, whose fiftieth is 630. A shipped batch of brunch needs 2,560, so that it would take some 1,200
of them; batches of 512 samples need 849 rows, and 1,000 of them touch 45,705, whose fiftieth is 914. In small batches, 400 of 256 samples,
globo needs 152 rows and touches 8,787, whose fiftieth is 175.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import real_data
from tests.e2e.jobs import Job, run_job

GLOBO = ("run.steps=200",)
GLOBO_IN_SMALL_BATCHES = ("run.steps=400", "stages.negatives.batch_size=256")
BRUNCH = ("run.steps=1000", "stages.negatives.batch_size=512")
RESIDENT = ("stages.stream.enabled=false", "store.l1_rows=200000", "stages.prefetch.lookahead=1")


@dataclass(frozen=True)
class RealJob:
    """A job on a real log: its config, what has to be the same in every run, and the run with all in memory."""

    config: str
    overrides: tuple[str, ...]
    base: Job
    num_rows: int


def real_job(directory: Path, config: str, overrides: Sequence[str]) -> RealJob:
    """Run ``config`` on its log in a new folder of ``directory``: all rows in L1, nothing ahead, no stream. Skips without the log."""
    real_data(config)
    overrides = ("run.threads=2", *overrides)
    base = run_job(directory / "base", config, *overrides, *RESIDENT)
    return RealJob(config, overrides, base, sum(table["ids"].shape[0] for table in base.tables().values()))
