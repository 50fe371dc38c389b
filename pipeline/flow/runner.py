"""Runs a graph: one task group, from the first stage's open to the last one's close.

The walk.

1. Stages are made and opened in order, before any task.
2. One task pumps the source, one drives each visit. They end by closing channels, front to back.
3. Stages are closed in reverse while their background tasks still run; then those are cancelled.
4. When anything fails, the group cancels the rest, stages are closed in reverse, and the first error is raised,
   naming its stage.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from time import perf_counter
from typing import Any

from pipeline.flow.assembly import Assembly, assemble
from pipeline.flow.background import Background
from pipeline.flow.errors import Aborted, FlowError
from pipeline.flow.every import Every
from pipeline.flow.failures import Failures
from pipeline.flow.graph import Graph
from pipeline.flow.lag import LagSampler
from pipeline.flow.lanes import Lanes
from pipeline.flow.perturb import Perturb, SpanHook
from pipeline.flow.pump import CHECKPOINT
from pipeline.flow.signals import handled_signals
from pipeline.flow.stage import Marker
from pipeline.flow.stage_set import StageSet, shielded
from pipeline.flow.stats import RunReport
from pipeline.flow.visit import Hooks

SWITCH_INTERVAL_S = 0.0001
"""A lane that holds the interpreter's lock gives it up this soon; the default delays the loop by up to ten times as
much.
"""
RUNNING = "running"


class Runner:
    """Runs ``graph`` once.

    ``resources`` by name are handed to the stages that need them; the lanes belong to the caller, who closes them.
    ``max_items`` stops behind that many items of the source; ``marker_every`` sends markers ("100 steps", "60s",
    Every); ``on_marker`` is awaited behind the last stage; ``on_progress`` is called every ``progress_every_s`` on
    the loop. ``restore`` gives stages back their states, by name. ``drain_timeout_s`` bounds the time from a stop to
    the end of the run, ``close_timeout_s`` each stage's close. ``perturb`` and ``on_span`` watch and disturb; None is
    free.
    """

    def __init__(
        self,
        graph: Graph,
        resources: Mapping[str, Any],
        lanes: Lanes,
        *,
        max_items: int | None = None,
        marker_every: Every | int | str | None = None,
        on_marker: Callable[[Marker], Awaitable[None]] | None = None,
        on_progress: Callable[[], None] | None = None,
        progress_every_s: float = 0.25,
        restore: Mapping[str, Any] | None = None,
        perturb: Perturb | None = None,
        on_span: SpanHook | None = None,
        handle_signals: bool = False,
        drain_timeout_s: float | None = None,
        close_timeout_s: float = 30.0,
    ) -> None:
        self._graph = graph
        self._resources = resources
        self._lanes = lanes
        self._max_items = max_items
        self._every = Every.parse(marker_every)
        self._on_marker = on_marker
        self._on_progress = on_progress
        self._progress_every_s = progress_every_s
        self._restore = dict(restore or {})
        self._hooks = Hooks(perturb, on_span)
        self._handle_signals = handle_signals
        self._drain_timeout_s = drain_timeout_s
        self._close_timeout_s = close_timeout_s
        self._failures = Failures()
        self._background = Background(self._failures)
        self._lag = LagSampler()
        self._assembly: Assembly | None = None
        self._group: asyncio.TaskGroup | None = None
        self._host: asyncio.Task[Any] | None = None
        self._stop: str | None = None
        self._aborted: str | None = None
        self._markers_done = 0
        self._drain_timer: asyncio.TimerHandle | None = None
        self._loop_tasks: dict[asyncio.Task[None], str] = {}
        self._began = perf_counter()
        self._ended: float | None = None

    async def run(self) -> RunReport:
        """Run to the end of the input, the limit, or a stop.

        Raises StageError for the first stage that failed, Aborted after ``abort``, and what ``on_marker`` raised.
        """
        if self._host is not None:
            raise FlowError("a runner runs once; make another")
        self._host = asyncio.current_task()
        self._began = perf_counter()
        signals = handled_signals(self._on_signal) if self._handle_signals else contextlib.nullcontext()
        with signals, _switch_interval(), self._perturbed_lanes():
            self._lag.start()
            try:
                await self._run()
            finally:
                self._lag.stop()
                self._ended = perf_counter()
                if self._drain_timer is not None:
                    self._drain_timer.cancel()
        return self.progress()

    def request_stop(self, reason: str = "interrupt") -> None:
        """Let the source stop between two items and what is in flight run through; no stage is drained.

        On the loop only.
        """
        if self._stop is None and self._ended is None:
            self._stop = reason
            if self._assembly is not None:
                self._assembly.pump.stop(reason)
            if self._drain_timeout_s is not None:
                loop = asyncio.get_running_loop()
                self._drain_timer = loop.call_later(self._drain_timeout_s, self._drain_took_too_long)

    def request_marker(self, reason: str = CHECKPOINT) -> None:
        """Send a marker behind the last item, also when the source is idle; not when nothing came since the last
        marker.
        """
        if self._assembly is None or self._group is None:
            return
        mark = self._assembly.pump.want_marker(reason)
        if mark is not None:
            stage = self._assembly.pump.member.name
            self._failures.start(self._group, stage, mark, f"marker {reason}", "marker: ")

    def abort(self, why: str) -> None:
        """End at once: cancel everything, close the stages, raise Aborted. On the loop only."""
        if self._aborted is None and self._ended is None and self._host is not None:
            self._aborted = why
            self._failures.note(Aborted(why))
            self._host.cancel(why)

    def progress(self) -> RunReport:
        """The figures so far, or the final ones. Cheap; on the loop only."""
        now = perf_counter() if self._ended is None else self._ended
        made = self._assembly
        if made is None:
            raise FlowError("there is no progress before the run has begun")
        outcome = None if self._ended is None else "failed" if self._failures.first is not None else made.pump.outcome
        return RunReport(
            outcome=outcome or RUNNING,
            wall_s=now - self._began,
            items=made.pump.member.items_out,
            stages=made.stage_reports(),
            channels={channel.name: channel.stats() for channel in made.channels},
            lanes=self._lanes.stats(),
            lag=self._lag.lag(),
        )

    async def _run(self) -> None:
        made = self._assembly = assemble(
            self._graph,
            self._lanes,
            self._hooks,
            self._marker_arrived,
            max_items=self._max_items,
            marker_items=None if self._every is None else self._every.items,
        )
        if self._stop is not None:
            made.pump.stop(self._stop)
        stages = StageSet(
            made.members, self._resources, self._lanes, self._background, stopping=lambda: self._stop is not None
        )
        try:
            await stages.open(self._restore)
            made.give_back_waiting()
            await self._run_group(made, stages)
        except BaseException as error:
            await self._close_after(error, stages)
            self._raise_first(error)
        finally:
            self._background.cancel()
            for channel in made.channels:
                channel.abort()
            for letters in made.dead_letters:
                await shielded(letters.close(), "closing the dead letters")

    async def _run_group(self, made: Assembly, stages: StageSet) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._background.begin(group)
            tickers = self._start_tickers(group)
            self._start_loops(made, group)
            # A task that fails makes the group cancel this one, here.
            await asyncio.wait(self._loop_tasks)
            self._group = None
            await shielded(stages.close(None, self._close_timeout_s, self._failures), "closing the stages")
            for ticker in tickers:
                ticker.cancel()
            self._background.cancel()
            if self._failures.first is not None:
                raise self._failures.first

    def _start_loops(self, made: Assembly, group: asyncio.TaskGroup) -> None:
        work: dict[str, Callable[[], Awaitable[None]]] = {made.pump.member.name: made.pump.run}
        work |= {"+".join(member.name for member in loop.members): loop.run for loop in made.loops}
        for name, run in work.items():
            # A fused visit's own errors name their stage already; the last one answers for what has no stage.
            task = self._failures.start(group, name.rpartition("+")[2], run, name)
            assert task is not None, "the group has just begun"
            self._loop_tasks[task] = name

    def _start_tickers(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        tickers = []
        if self._on_progress is not None:
            tickers.append(group.create_task(_repeat(self._progress_every_s, self._on_progress), name="progress"))
        if self._every is not None and self._every.seconds is not None:
            tickers.append(group.create_task(_repeat(self._every.seconds, self._timed_marker), name="markers"))
        return tickers

    def _timed_marker(self) -> None:
        """One at a time: while a marker is on its way, the next would only say the same again."""
        if self._assembly is not None and self._assembly.pump.num_markers == self._markers_done:
            self.request_marker()

    async def _marker_arrived(self, marker: Marker) -> None:
        try:
            if self._on_marker is not None:
                await self._on_marker(marker)
        except Exception as error:
            self._failures.note(error)
            raise
        self._markers_done += 1

    async def _close_after(self, error: BaseException, stages: StageSet) -> None:
        self._failures.note(error)
        first = self._failures.first or error
        with contextlib.suppress(asyncio.CancelledError):
            # Cancelled again meanwhile: the error that is raised next says more.
            await shielded(stages.close(first, self._close_timeout_s, self._failures), "closing the stages")

    def _raise_first(self, error: BaseException) -> None:
        if self._aborted is not None and self._host is not None:
            self._host.uncancel()
        first = self._failures.first
        if first is None:
            raise error
        raise first from first.__cause__

    def _on_signal(self, name: str) -> None:
        if self._stop is None:
            self.request_stop()
        else:
            self.abort(f"{name} while the run was stopping ({self._stop})")

    def _drain_took_too_long(self) -> None:
        busy = [name for task, name in self._loop_tasks.items() if not task.done()]
        self.abort(
            f"not drained {self._drain_timeout_s} s after the stop ({self._stop}); busy: {', '.join(busy) or 'close'}"
        )

    @contextlib.contextmanager
    def _perturbed_lanes(self) -> Iterator[None]:
        before, self._lanes.perturb = self._lanes.perturb, self._hooks.perturb
        try:
            yield
        finally:
            self._lanes.perturb = before


@contextlib.contextmanager
def _switch_interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


async def _repeat(every_s: float, call: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(every_s)
        call()
