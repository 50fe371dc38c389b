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
    from stages.items import RawBatch


def measure(config: str, directory: Path, samples_per_s: float, overrides: list[str]) -> dict[str, Any]:
    """Train ``config``, its batches no earlier than so many samples a second allow. Returns the summary; ``late_s`` is how far behind that
    it ended.
    """
    from pipeline.session import environment

    environment.pin()
    from stages.prefetch import Prefetch

    place, clock = Prefetch._place, _Clock(samples_per_s)

    async def place_in_time(self: Prefetch, raw: RawBatch) -> Any:
        await clock.wait(raw.num_samples)
        return await place(self, raw)

    Prefetch._place = place_in_time  # type: ignore[method-assign]
    summary = _train(config, directory, overrides)[1]
    return summary | {"late_s": clock.late_s}


class _Clock:
    """Batches are due one behind the other, from the first on."""

    def __init__(self, samples_per_s: float) -> None:
        self._rate, self._samples = samples_per_s, 0
        self._began = 0.0
        self.late_s = 0.0

    async def wait(self, samples: int) -> None:
        now = time.monotonic()
        self._began = self._began or now
        due = self._began + self._samples / self._rate
        self._samples += samples
        self.late_s = max(0.0, now - due)
        await asyncio.sleep(max(0.0, due - now))


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
