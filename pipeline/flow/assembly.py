"""From a plan to loops: makes the stages' objects, the channels between visits, and the loop of each visit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.flow.ahead import AheadVisit
from pipeline.flow.burst import BurstVisit
from pipeline.flow.channel import Channel
from pipeline.flow.dead_letters import DeadLetters
from pipeline.flow.errors import FlowError
from pipeline.flow.failures import stage_error
from pipeline.flow.graph import Graph, Visit
from pipeline.flow.lanes import Lanes
from pipeline.flow.member import Member
from pipeline.flow.outlet import Outlet
from pipeline.flow.pump import SourcePump
from pipeline.flow.stage import Marker
from pipeline.flow.stats import StageReport
from pipeline.flow.tolerant import ConcurrentVisit, TolerantVisit
from pipeline.flow.visit import Hooks, InlineVisit, LaneVisit, VisitLoop, waits_ready

DEAD_LETTER_LANE = "dead letters"


@dataclass(slots=True)
class Assembly:
    """``channels[i]`` leads into ``loops[i]``; the pump sends into the first."""

    pump: SourcePump
    channels: list[Channel[Any]]
    loops: list[VisitLoop]
    dead_letters: list[DeadLetters] = field(default_factory=list)

    @property
    def members(self) -> list[Member]:
        """All stages in order."""
        return [self.pump.member, *(member for loop in self.loops for member in loop.members)]

    def give_back_waiting(self) -> None:
        """Put what stages left undone in an earlier run in front of them. Raises StageError."""
        for loop in self.loops:
            for number, member in enumerate(loop.members):
                waiting = member.stage.waiting()
                if waiting and number:
                    why = FlowError(
                        "it shares a visit to its lane, and items can only wait in front of the first stage there"
                    )
                    raise stage_error(member.name, why, "waiting: ")
                for item in waiting:
                    loop.inbox.force(item)

    def stage_reports(self) -> dict[str, StageReport]:
        """Each stage's figures with the waits of its channels, by name."""
        stats = [channel.stats() for channel in self.channels]
        self.pump.member.service_ns = int(self.pump.service_s() * 1e9)
        reports = [self.pump.member.report(None, stats[0] if stats else None)]
        for number, loop in enumerate(self.loops):
            for member in loop.members:
                inbox = stats[number] if member is loop.members[0] else None
                last = member is loop.members[-1] and number + 1 < len(stats)
                reports.append(member.report(inbox, stats[number + 1] if last else None))
        return {report.name: report for report in reports}


def assemble(
    graph: Graph,
    lanes: Lanes,
    hooks: Hooks,
    on_marker: Callable[[Marker], Awaitable[None]],
    *,
    max_items: int | None,
    marker_items: int | None,
) -> Assembly:
    """Build what a run needs; nothing runs yet, but lanes that are used have started."""
    visits = graph.visits[1:]
    channels = [_channel(before, visit, hooks) for before, visit in zip(graph.visits, visits, strict=False)]
    outlets = [Outlet(channel, on_marker) for channel in channels] + [Outlet(None, on_marker)]
    pump = SourcePump(Member.of(graph.stages[0]), outlets[0], hooks, max_items=max_items, marker_items=marker_items)
    made = Assembly(pump, channels, [])
    for visit, inbox, outlet in zip(visits, channels, outlets[1:], strict=True):
        made.loops.append(_loop(visit, inbox, outlet, hooks, lanes, made.dead_letters))
    return made


def _channel(before: Visit, visit: Visit, hooks: Hooks) -> Channel[Any]:
    queue = visit.stages[0].runtime.queue
    name = f"{before.stages[-1].name}->{visit.stages[0].name}"
    return Channel(name, queue.items, queue.bytes, perturb=hooks.perturb)


def _loop(
    visit: Visit, inbox: Channel[Any], outlet: Outlet, hooks: Hooks, lanes: Lanes, dead_letters: list[DeadLetters]
) -> VisitLoop:
    members = [Member.of(stage) for stage in visit.stages]
    first = visit.stages[0]
    lane = None if visit.lane is None else lanes.get(visit.lane)
    if first.runtime.policies():
        letters = None
        if first.runtime.dead_letter is not None:
            letters = DeadLetters(first.runtime.dead_letter, lanes.get(DEAD_LETTER_LANE))
            dead_letters.append(letters)
        kind = TolerantVisit if first.runtime.concurrency == 1 else ConcurrentVisit
        return kind(members[0], inbox, outlet, hooks, lane, letters)
    plain = not (waits_ready(members) or hooks.perturb is not None)
    if lane is not None:
        # On several threads, items that were queued together would be worked on together.
        ahead = plain and lane.options.threads == 1
        return (AheadVisit if ahead else LaneVisit)(members, inbox, outlet, hooks, lane)
    return (BurstVisit if plain and hooks.on_span is None else InlineVisit)(members, inbox, outlet, hooks)
