"""Small stages and a way to run them, for the tests of the runtime."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from pipeline.flow import (
    Graph,
    Lanes,
    Many,
    Marker,
    Runner,
    RunReport,
    Source,
    Stage,
    StageContext,
    StageOptions,
    plan,
    run_loop,
)


class NumbersOptions(StageOptions):
    count: int = 10


class Numbers(Source):
    """Yields 1, 2, ... and remembers how far it came."""

    Options = NumbersOptions
    produces = int

    def __init__(self, options: NumbersOptions) -> None:
        super().__init__(options)
        self.last = 0

    async def items(self) -> AsyncIterator[int]:
        while self.last < self.options.count:
            self.last += 1
            yield self.last

    def state(self) -> int:
        return self.last

    def restore(self, state: int) -> None:
        self.last = state


class Waiting(Numbers):
    """The same, but after the last number it waits for ever: a source that follows a log."""

    async def items(self) -> AsyncIterator[int]:
        async for number in super().items():
            yield number
        await asyncio.Event().wait()


class Inline(Stage):
    """Adds 1, on the loop."""

    consumes = int
    produces = int

    async def process(self, item: int) -> Any:
        return item + 1


class OnLane(Stage):
    """Adds 1, on lane ``a``, and counts what it saw."""

    consumes = int
    produces = int
    lane = "a"

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.seen = 0

    def work(self, item: int) -> Any:
        self.seen += 1
        return item + 1

    def state(self) -> int:
        return self.seen

    def restore(self, state: int) -> None:
        self.seen = state


class Keep(Stage):
    """The last stage of most tests: keeps what arrives in the resource ``kept``."""

    consumes = int
    produces = int
    needs = {"kept": list}

    async def open(self, context: StageContext) -> None:
        self.kept: list[Any] = context.resources["kept"]

    async def process(self, item: Any) -> Any:
        self.kept.append(item)
        return item


def variant(base: type[Stage], **attributes: Any) -> type[Stage]:
    """A subclass of ``base`` with other methods or class attributes."""
    return type(f"{base.__name__}Variant", (base,), attributes)


KNOWN: dict[str, type[Stage]] = {
    "numbers": Numbers,
    "waiting": Waiting,
    "inline": Inline,
    "on_lane": OnLane,
    "keep": Keep,
}


def graph_of(nodes: Mapping[str, Mapping[str, Any] | None], **classes: type[Stage]) -> Graph:
    """Plan ``nodes``; a stage's class is found by its ``use`` in ``classes`` and ``KNOWN``."""
    return plan(nodes, find={**KNOWN, **classes}.__getitem__)


class Run:
    """One run of a graph, with what came of it."""

    def __init__(self, graph: Graph, *, resources: Mapping[str, Any] | None = None, **options: Any) -> None:
        self.kept: list[Any] = []
        self.markers: list[Marker] = []
        self.lanes = Lanes(options.pop("lanes", None))
        options.setdefault("on_marker", self.on_marker)
        self.runner = Runner(graph, {"kept": self.kept, **(resources or {})}, self.lanes, **options)

    async def on_marker(self, marker: Marker) -> None:
        self.markers.append(marker)

    def go(self, beside: Callable[[Run], Any] | None = None) -> RunReport:
        """Run on uvloop to the end; ``beside`` is a coroutine function that runs beside it. The lanes are closed behind it."""
        try:
            return run_loop(lambda: self._go(beside))
        finally:
            self.lanes.close()

    async def _go(self, beside: Callable[[Run], Any] | None) -> RunReport:
        if beside is None:
            return await self.runner.run()
        other = asyncio.create_task(beside(self))
        try:
            return await self.runner.run()
        finally:
            other.cancel()
            await asyncio.gather(other, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until ``condition`` holds."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


def times(count: int) -> Callable[[Any, Any], Many]:
    """A work or process result: the item, ``count`` times."""
    return lambda _self, item: Many([item] * count)
