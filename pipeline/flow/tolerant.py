"""Visits of stages without effects: retries, skips, dead letters, and several items at once with their order kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from pipeline.flow.channel import Channel
from pipeline.flow.dead_letters import DeadLetters
from pipeline.flow.errors import EndOfChannel, StageError
from pipeline.flow.failures import stage_error
from pipeline.flow.member import Member
from pipeline.flow.outlet import Outlet
from pipeline.flow.stage import Lane, Many, Marker
from pipeline.flow.visit import Hooks, VisitLoop

Watch = Callable[[str, Any], Any]


class TolerantVisit(VisitLoop):
    """One stage without effects, inline or on a lane, one item after the other."""

    def __init__(
        self,
        member: Member,
        inbox: Channel[Any],
        outlet: Outlet,
        hooks: Hooks,
        lane: Lane | None,
        dead_letters: DeadLetters | None,
    ) -> None:
        super().__init__((member,), inbox, outlet, hooks)
        self._member = member
        self._lane = lane
        self._dead_letters = dead_letters

    async def work(self, first: int, item: Any) -> Any:
        """The result, or Many() for an item that was skipped. Raises StageError when attempts or skips are used up."""
        assert first == 0, "a tolerant visit has one stage"
        member = self._member
        member.items_in += 1
        for attempt in range(member.planned.runtime.retries + 1):
            if attempt:
                member.retries += 1
            try:
                result = await self._attempt(item)
            except Exception as error:
                failed = error
            else:
                member.items_out += len(result) if type(result) is Many else 1
                return result
        return await self._give_up(item, failed)

    async def _attempt(self, item: Any) -> Any:
        member = self._member
        if self._lane is None:
            begin = perf_counter_ns()
            try:
                return await member.stage.process(item)
            finally:
                self._count(begin, perf_counter_ns())
        spans: list[int] = []
        try:
            return await self._lane.run(_timed, spans, member.stage.work, item)
        finally:
            # Counted here and not on the lane, where several calls may end at once.
            if len(spans) == 2:
                self._count(*spans)

    def _count(self, begin: int, end: int) -> None:
        self._member.service_ns += end - begin
        if self.hooks.on_span is not None:
            self.hooks.on_span(self._member.name, begin, end)

    async def _give_up(self, item: Any, error: Exception) -> Many:
        member, runtime = self._member, self._member.planned.runtime
        if runtime.on_error == "fail":
            raise stage_error(member.name, error) from error
        member.skipped += 1
        if self._dead_letters is not None:
            await self._dead_letters.write(member.name, item, error)
        if member.skipped > runtime.max_skipped:
            what = f"skipped {member.skipped} items, and max_skipped is {runtime.max_skipped}; the last: {error!r}"
            raise StageError(member.name, what) from error
        return Many()


class ConcurrentVisit(TolerantVisit):
    """The same with up to ``concurrency`` items at once. Results leave in the order of their items.

    A marker waits until everything before it has left, and nothing behind it starts before it has passed.
    """

    async def run(self) -> None:
        width = self._member.planned.runtime.concurrency
        permits = asyncio.Semaphore(width)
        order: Channel[asyncio.Task[Any]] = Channel(f"order of {self._member.name}", width)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._emit_in_order(order, permits), name=f"{self._member.name} in order")
            while True:
                await permits.acquire()
                try:
                    item = await self.inbox.receive()
                except EndOfChannel:
                    break
                if type(item) is Marker:
                    await self._pass_alone(item, permits, width)
                else:
                    await order.send(group.create_task(self._one(item), name=self._member.name))
            order.close()
        self.outlet.close()

    async def _one(self, item: Any) -> Any:
        await self.enter(item)
        return await self.work(0, item)

    async def _emit_in_order(self, order: Channel[asyncio.Task[Any]], permits: asyncio.Semaphore) -> None:
        async for task in order:
            await self.emit(await task)
            permits.release()

    async def _pass_alone(self, marker: Marker, permits: asyncio.Semaphore, width: int) -> None:
        for _ in range(width - 1):
            await permits.acquire()
        await self.pass_marker(marker)
        for _ in range(width):
            permits.release()


def _timed(spans: list[int], work: Callable[[Any], Any], item: Any) -> Any:
    begin = perf_counter_ns()
    try:
        return work(item)
    finally:
        spans += (begin, perf_counter_ns())
