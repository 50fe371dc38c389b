"""A run whose batches come at a rate, as they would from live traffic; and the batches that come behind its last one.

A process of its own for each: what it prints last is a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from cuda.plan import FeatureSet
    from pipeline.wire import CommitFrame
    from stages.items import RawBatch


def measure(config: str, directory: Path, samples_per_s: float, overrides: list[str]) -> dict[str, Any]:
    """Train ``config``, its batches one behind the other at so many samples a second. Returns the summary; ``paced_samples_per_s`` is the
    rate they came at, below the one asked for where training had no time for it; ``oldest_s`` is how long the oldest row of
    each cut had waited when it was published.
    """
    from pipeline.session import environment

    environment.pin()
    from pipeline.stream import RowStreamer
    from stages.prefetch import Prefetch

    place, cut, clock, waited_s = Prefetch._place, RowStreamer.cut, Clock(samples_per_s), list[float]()

    async def place_in_time(self: Prefetch, raw: RawBatch) -> Any:
        await asyncio.sleep(clock.wait_s(time.monotonic(), raw.num_samples))
        return await place(self, raw)

    def cut_and_time(self: RowStreamer) -> CommitFrame | None:
        commit = cut(self)
        if commit is not None and len(commit.ended_k2):
            waited_s.append((time.time_ns() - int(commit.ended_k2[:, 1].min())) / 1e9)
        return commit

    Prefetch._place = place_in_time  # type: ignore[method-assign]
    RowStreamer.cut = cut_and_time  # type: ignore[method-assign]
    try:
        summary = _train(config, directory, overrides)[1]
    finally:
        Prefetch._place, RowStreamer.cut = place, cut  # type: ignore[method-assign]
    return summary | {"paced_samples_per_s": clock.samples_per_s, "oldest_s": waited_s}


class Clock:
    """When batches are due. One that comes late makes those behind it late: never more than one follows before its time, so that no
    rush of steps goes into one cut.
    """

    def __init__(self, samples_per_s: float) -> None:
        self._rate, self._due = samples_per_s, 0.0
        self._began = self._ended = 0.0
        self._samples = self._last = 0

    def wait_s(self, now: float, samples: int) -> float:
        """How long after ``now`` the next batch, of so many samples, is due."""
        if not self._samples:
            self._began = self._due = now
        self._due = max(self._due, now - self._last / self._rate)
        self._ended = max(self._due, now)
        wait_s = self._ended - now
        self._due += samples / self._rate
        self._samples, self._last = self._samples + samples, samples
        return wait_s

    @property
    def samples_per_s(self) -> float:
        """From the first batch to the last one, which counts for nothing: it ends when the next would be due."""
        return (self._samples - self._last) / max(self._ended - self._began, 1e-9)


def future(
    config: str, directory: Path, steps: int, count: int, overrides: list[str]
) -> tuple[list[RawBatch], FeatureSet, torch.nn.Module]:
    """The ``count`` batches behind step ``steps`` of the job, what its features are, and its model (weights of no use)."""
    from pipeline.session import environment

    environment.pin()
    from stages.prefetch import Prefetch

    place, behind, seen = Prefetch._place, list[Any](), [0]

    async def place_and_keep(self: Prefetch, raw: RawBatch) -> Any:
        seen[0] += 1
        if seen[0] > steps:
            behind.append(raw)
        return await place(self, raw)

    Prefetch._place = place_and_keep  # type: ignore[method-assign]
    try:
        limits = [f"run.steps={steps + count}", "stages.stream.enabled=false"]
        trainer, _ = _train(config, directory, [*overrides, *limits])
    finally:
        Prefetch._place = place  # type: ignore[method-assign]
    assert trainer.resources is not None
    if len(behind) < count:
        raise ValueError(
            f"{config} ends {count - len(behind)} batches too early: there are {seen[0]}, wanted are {steps + count}"
        )
    return behind[:count], trainer.resources.by_name["features"], trainer.resources.model


def _train(config: str, directory: Path, overrides: list[str]) -> tuple[Any, dict[str, Any]]:
    from pipeline.config import load
    from pipeline.session import environment
    from pipeline.session.plan import make_plan
    from pipeline.session.rundir import claim
    from pipeline.session.settings import Settings
    from pipeline.session.trainer import Trainer

    environment.keep_freed_memory()
    plan = make_plan(load([config], [f"run.dir={directory}", "replica.embedded=false", *overrides], Settings))
    with claim(directory, seed=0, record={}, overwrite=False) as info:
        trainer = Trainer(plan, info)
        trainer.on_open.append(lambda _resources: environment.leave_start_to_itself())
        return trainer, trainer.train()[1]


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])))
