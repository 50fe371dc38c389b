"""Drives a source or a stage without a runner: real lanes, real counters, tasks in one group."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.flow.counters import StageCounters
from pipeline.flow.lanes import Lanes
from pipeline.flow.run_info import RunInfo
from pipeline.flow.stage import Source, Stage, StageContext
from stages.items import RawBatch

BROKEN_OFF = "broken off"


def context_of(lanes: Lanes, group: asyncio.TaskGroup, counters: StageCounters, seed: int = 7) -> StageContext:
    """What the runner would give a stage."""

    def spawn(run: Callable[[], Awaitable[None]], name: str) -> None:
        async def body() -> None:
            await run()

        group.create_task(body(), name=name)

    run = RunInfo(run_id="test", dir=Path(), seed=seed, generation=1)
    return StageContext("source", {"run": run}, lanes.get, counters, spawn)


class Drive:
    """What came out of a source: batches, the states behind each, counts."""

    def __init__(self) -> None:
        self.batches: list[RawBatch] = []
        self.states: list[Any] = []
        self.counters = StageCounters()
        self.error: Exception | None = None

    @property
    def counts(self) -> dict[str, int | float]:
        return self.counters.snapshot()


async def drive_async(
    make: Callable[[], Source],
    state: Any = None,
    limit: int | None = None,
    seed: int = 7,
    on_batch: Callable[[int], None] | None = None,
) -> Drive:
    """Iterate the source until its end, its error, or ``limit`` batches; restore ``state`` first."""
    drive = Drive()
    with Lanes() as lanes:
        async with asyncio.TaskGroup() as group:
            source = make()
            try:
                await source.open(context_of(lanes, group, drive.counters, seed))
                if state is not None:
                    source.restore(state)
                async with aclosing(source.items()) as items:  # type: ignore[type-var]
                    async for batch in items:
                        drive.batches.append(batch)
                        drive.states.append(source.state())
                        if on_batch is not None:
                            on_batch(len(drive.batches))
                        if limit is not None and len(drive.batches) == limit:
                            break
            except Exception as error:
                drive.error = error
            await source.close(drive.error)
    return drive


def drive(make: Callable[[], Source], state: Any = None, limit: int | None = None, seed: int = 7) -> Drive:
    """The same, from a test that is no coroutine. An error of the source is raised."""
    done = asyncio.run(drive_async(make, state, limit, seed))
    if done.error is not None:
        raise done.error
    return done


def run_stage(
    make: Callable[[], Stage], batches: list[RawBatch], state: Any = None
) -> tuple[list[RawBatch], Any, Drive]:
    """Push batches through a stage with a lane; returns what came out, drained, and the state before the drain."""
    drive = Drive()

    async def go() -> tuple[list[RawBatch], Any]:
        with Lanes() as lanes:
            async with asyncio.TaskGroup() as group:
                stage = make()
                await stage.open(context_of(lanes, group, drive.counters))
                if state is not None:
                    stage.restore(state)
                out: list[RawBatch] = []
                assert stage.lane is not None
                for batch in batches:
                    made = await lanes.get(stage.lane).run(stage.work, batch)
                    out += made if isinstance(made, tuple) else [made]
                return out, (stage.state(), list(await stage.drain()))

    out, (last, drained) = asyncio.run(go())
    return out + drained, last, drive


def plain(batch: RawBatch) -> dict[str, Any]:
    """A batch as lists, to compare whole batches."""
    return {
        "num_samples": batch.num_samples,
        "first_row": batch.first_row,
        "labels": batch.labels_b.tolist(),
        "dense": batch.dense_bd.tolist(),
        "features": {
            name: (
                bags.ids_n.tolist(),
                bags.offsets_b.tolist(),
                *(None if part is None else (str(part.dtype), part.tolist()) for part in bags.beside),
            )
            for name, bags in batch.features.items()
        },
        "cursor": dict(batch.cursor),
    }


def bags_of(batches: list[RawBatch], name: str) -> list[list[int]]:
    """All bags of a feature, sample by sample."""
    return [
        part.tolist()
        for batch in batches
        for part in np.split(batch.features[name].ids_n, batch.features[name].offsets_b[1:-1])
    ]
