"""The loop of a visit: take an item, work on it, hand on what comes of it; let markers through in between.

``InlineVisit`` and ``LaneVisit`` are for stages without error policies; ``tolerant`` has the others, ``burst`` the
fast inline one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from pipeline.flow.channel import Channel
from pipeline.flow.errors import EndOfChannel
from pipeline.flow.failures import stage_error
from pipeline.flow.member import Member
from pipeline.flow.outlet import Outlet
from pipeline.flow.perturb import Perturb, SpanHook
from pipeline.flow.stage import Lane, Many, Marker

END = "end"


@dataclass(frozen=True, slots=True)
class Hooks:
    """What may watch or disturb a run; None is free."""

    perturb: Perturb | None = None
    on_span: SpanHook | None = None


def waits_ready(members: Sequence[Member]) -> bool:
    """Whether the first of ``members``, worked through in one visit, has to be asked whether it is ready."""
    return members[0].planned.stage_class.waits_in(tuple(member.planned.stage_class for member in members))


class VisitLoop:
    """Base: everything but the work on an item."""

    def __init__(self, members: Sequence[Member], inbox: Channel[Any], outlet: Outlet, hooks: Hooks) -> None:
        self.members = tuple(members)
        self.inbox = inbox
        self.outlet = outlet
        self.hooks = hooks
        self._head = self.members[0]
        self._waits_ready = waits_ready(self.members)

    async def run(self) -> None:
        """Work until the inbox has ended, then close the outlet. Raises StageError."""
        while True:
            try:
                item = await self.inbox.receive()
            except EndOfChannel:
                break
            if type(item) is Marker:
                await self.pass_marker(item)
            else:
                await self.handle(item)
        self.outlet.close()

    async def handle(self, item: Any) -> None:
        """Work on one item and hand on the results."""
        await self.enter(item)
        await self.emit(await self.work(0, item))

    async def work(self, first: int, item: Any) -> Any:
        """What the members from number ``first`` on make of ``item``: one item, or Many."""
        raise NotImplementedError

    async def enter(self, item: Any) -> None:
        """Wait until the first member may work on ``item``."""
        if self.hooks.perturb is not None:
            await self.hooks.perturb.pause(f"stage {self._head.name}")
        if self._waits_ready:
            begin = perf_counter_ns()
            try:
                await self._head.stage.ready(item)
            except Exception as error:
                raise stage_error(self._head.name, error) from error
            finally:
                self._head.ready_wait_ns += perf_counter_ns() - begin

    async def emit(self, result: Any) -> None:
        """Hand on one item, or each of Many."""
        if type(result) is Many:
            for item in result:
                await self.outlet.put(item)
        else:
            await self.outlet.put(result)

    async def pass_marker(self, marker: Marker) -> None:
        """Take each member's state, in order; at the end of the input each is drained first."""
        for number, member in enumerate(self.members):
            try:
                drained = await member.stage.drain() if marker.reason == END else None
            except Exception as error:
                raise stage_error(member.name, error, "drain: ") from error
            if drained is not None:
                await self._emit_drained(number, drained)
            try:
                await member.stage.mark(marker)
                marker.states[member.name] = member.stage.state()
            except Exception as error:
                raise stage_error(member.name, error, f"marker {marker.reason!r}: ") from error
        await self.outlet.pass_on(marker)

    async def _emit_drained(self, number: int, drained: Any) -> None:
        for item in drained if type(drained) is Many else (drained,):
            self.members[number].items_out += 1
            await self.emit(await self.work(number + 1, item) if number + 1 < len(self.members) else item)


class InlineVisit(VisitLoop):
    """One stage, on the event loop."""

    async def work(self, first: int, item: Any) -> Any:
        member = self.members[first]
        member.items_in += 1
        begin = perf_counter_ns()
        try:
            result = await member.stage.process(item)
        except Exception as error:
            raise stage_error(member.name, error) from error
        end = perf_counter_ns()
        member.service_ns += end - begin
        member.items_out += len(result) if type(result) is Many else 1
        if self.hooks.on_span is not None:
            self.hooks.on_span(member.name, begin, end)
        return result


class LaneVisit(VisitLoop):
    """One or several stages, in one hop to their lane for each item."""

    def __init__(
        self, members: Sequence[Member], inbox: Channel[Any], outlet: Outlet, hooks: Hooks, lane: Lane
    ) -> None:
        super().__init__(members, inbox, outlet, hooks)
        self._lane = lane

    async def work(self, first: int, item: Any) -> Any:
        return await self._lane.run(self._descend, first, item)

    def _descend(self, first: int, item: Any) -> Any:
        """On the lane: one item through all members. Of Many, each goes all the way before the next begins."""
        for number in range(first, len(self.members)):
            item = self._work_one(self.members[number], item)
            if type(item) is Many:
                if number + 1 == len(self.members):
                    break
                return self._descend_each(number + 1, item)
        return item

    def _descend_each(self, first: int, items: Many) -> Many:
        results: list[Any] = []
        for item in items:
            result = self._descend(first, item)
            if type(result) is Many:
                results.extend(result)
            else:
                results.append(result)
        return Many(results)

    def _work_one(self, member: Member, item: Any) -> Any:
        member.items_in += 1
        begin = perf_counter_ns()
        try:
            result = member.stage.work(item)
        except Exception as error:
            raise stage_error(member.name, error) from error
        end = perf_counter_ns()
        member.service_ns += end - begin
        member.items_out += len(result) if type(result) is Many else 1
        if self.hooks.on_span is not None:
            self.hooks.on_span(member.name, begin, end)
        return result
