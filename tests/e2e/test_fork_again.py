"""A run that dies and forks again and again: whatever it comes to, its replica comes to it too."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline.flow import StageError
from pipeline.replica import Replica
from pipeline.wire import CutPosition
from tests.e2e.followed import assert_replica_equals
from tests.e2e.held import held_by, trained
from tests.e2e.jobs import RAGGED, Job, run_job
from tests.e2e.test_resume import DISK, EVERY, Killed


class Mortal:
    """A run that dies at steps nobody chose and goes on, mostly as a fork, beside a replica that lives through it."""

    def __init__(self, directory: Path, options: Sequence[str]) -> None:
        self.seed = int(np.random.default_rng().integers(1 << 31))
        self.rng, self.directory, self.options = random.Random(self.seed), directory, options
        self.replica = Replica(str(directory / "stream"))
        self.seen = [(CutPosition(0, 0), 0)]
        self.lr, self.forks = 0.05, {1}

    def live(self, generation: int) -> Job | None:
        """None when it died."""
        death = self.replica.step + self.rng.randint(1, 20) if generation < 8 else -1
        fork = generation > 1 and self.rng.random() < 0.6
        if fork:
            self.lr += 0.01
            self.forks.add(generation)
        config = {**RAGGED, "dense_optimizer": {"use": "Adagrad", "lr": self.lr}}
        cuts = f"stages.stream.every='{self.rng.choice([1, 3, 8])} steps'"
        accept = ["dense_optimizer.lr"] if fork else []

        def look(step: int) -> None:
            time.sleep(0.003)
            self.replica.apply_available()
            self.seen.append((self.replica.position, self.replica.step))
            if step == death:
                raise Killed

        try:
            return run_job(
                self.directory, config, EVERY, cuts, *self.options, on_step=look, resume=generation > 1, accept=accept
            )
        except StageError as error:
            if not isinstance(error.__cause__, Killed):
                raise
            return None


@pytest.mark.parametrize("disk", [(), DISK], ids=["memory", "disk"])
def test_a_run_that_dies_and_forks_again_and_again_takes_its_replica_along(tmp_path: Path, disk: Sequence[str]) -> None:
    """Deaths anywhere: before the first checkpoint, behind a rewind, before a proof. The replica's step falls at forks only."""
    run = Mortal(tmp_path / "run", disk)
    job = next(job for job in map(run.live, range(1, 9)) if job is not None)
    run.replica.apply_available()
    assert held_by(run.replica) == trained(job), f"seed {run.seed}"
    run.replica.close()
    assert_replica_equals(job)
    for (before, was), (after, now) in pairwise(run.seen):
        forked = any(before.generation < one <= after.generation for one in run.forks)
        assert now >= was or forked, f"seed {run.seed}: from {was} {before} to {now} {after}"
