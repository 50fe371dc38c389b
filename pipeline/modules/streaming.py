"""The stream of a module: cuts of the changed rows, made on a thread of its own beside the user's loop.

The fence tells which rows each step touched, as in the stage ``stream``; the thread only decides when to cut. ``finish`` publishes what
is left. An error of the thread is raised by ``check``, at the next forward, and by ``finish``: its rows are still to be published.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from cuda.plan import SlotPlan
from pipeline.flow.run_info import ResumedFrom, RunInfo
from pipeline.modules.errors import ChannelTaken
from pipeline.modules.settings import ModuleStream
from pipeline.session.plan import Plan
from pipeline.session.resources import Resources
from pipeline.store import Store
from pipeline.stream import (
    CutPolicy,
    GroupedIds,
    RowStreamer,
    StreamIdentity,
    StreamTail,
    check_same_selection,
    find_tail,
    published_since,
)
from pipeline.wire import START, FileTransport, FileTransportOptions, StreamedTable, holds_stream

WRITER = "trainer"
MOST_WAIT_S = 3600.0


class Streaming:
    """Open from the start; ``finish`` or ``abandon`` ends it."""

    def __init__(self, options: ModuleStream, resources: Resources, plan: Plan, run: RunInfo) -> None:
        files, path = resources.by_name["files"], options.path or run.dir / "stream"
        taken = holds_stream(str(path), files)
        if taken and run.resumed is None:
            raise ChannelTaken(path)
        self.path = path
        self._store: Store = resources.store
        self._names = tuple(spec.name for spec in plan.specs)
        source = resources.by_name["row_source"].with_tables(options.codec, options.tables)
        streamed = tuple(table.spec.name for table in source.tables)
        self._selected = None if streamed == self._names else streamed
        self._transport = FileTransport(str(path), files, FileTransportOptions(segment_bytes=options.segment_bytes))
        tail = self._tail(run, source.tables) if taken else None
        self._streamer = RowStreamer(
            source,
            self._transport,
            StreamIdentity(run.run_id, WRITER, run.generation),
            previous=START if tail is None else tail.commit.position,
            previous_step=0 if tail is None else tail.commit.step,
        )
        self._streamer.open()
        if run.resumed is not None:
            self._go_on(run, run.resumed, tail)
        self._cuts = CutPolicy.parse(options.every)
        self._wholes = None if options.snapshot_every is None else CutPolicy.parse(options.snapshot_every)
        self._changed = threading.Condition()
        self._ending = False
        self._error: BaseException | None = None
        self._store.on_step(self._at_fence)
        self._thread = threading.Thread(target=self._follow, name="rowstream-stream", daemon=True)
        self._thread.start()

    def _tail(self, run: RunInfo, tables: Sequence[StreamedTable]) -> StreamTail | None:
        self._transport.claim()  # cuts off what a crash left of an end that was not durable
        tail = find_tail(self._transport.newest_first())
        if tail is not None and tail.header.run_id != run.run_id:
            self._transport.close()
            raise ChannelTaken(self.path)
        if tail is not None:
            check_same_selection(str(self.path), tail.header, tables)
        return tail

    def _go_on(self, run: RunInfo, resumed: ResumedFrom, tail: StreamTail | None) -> None:
        """Nobody can say that the user's loop will come to the same rows again: each life is a fork, which takes replicas to where it
        begins. Before the first step.
        """
        if tail is None:
            held = resumed.changed_after(0)
            if held:
                self._streamer.add(resumed.step, time.time_ns(), held)
            return
        unknown = [fork.step for fork in run.forks if fork.generation > tail.commit.generation]
        common = min(tail.commit.step, *unknown)
        published, held = published_since(self._transport.newest_first(), common), resumed.changed_after(common)
        none = np.empty(0, np.int64)
        ids = {name: np.union1d(published.get(name, none), held.get(name, none)) for name in {*published, *held}}
        self._streamer.rewind(ids)

    @property
    def figures(self) -> dict[str, Any]:
        return self._streamer.counters.as_dict()

    def add_loaded(self, step: int, ids: dict[str, Any]) -> None:
        """Rows that were loaded before the first step: replicas do not have them yet."""
        self._streamer.add(step, time.time_ns(), ids)
        self._wake()

    def _at_fence(self, step: int, plan: SlotPlan | None) -> None:
        """Inside the fence: references only."""
        if plan is None:
            self._streamer.add(step, time.time_ns(), {}, 0)
        else:
            unique = plan.unique
            ids = GroupedIds(self._names, unique.ids_u, unique.table_start_t, self._selected)
            self._streamer.add(step, time.time_ns(), ids)
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _follow(self) -> None:
        try:
            last = {"cut": (time.monotonic(), self._store.fence.step), "whole": (time.monotonic(), 0)}
            while (due := self._wait(last)) is not None:
                last[due] = time.monotonic(), self._store.fence.step
                if due == "cut":
                    self._streamer.cut()
                else:
                    self._streamer.snapshot_cut()
        except BaseException as error:
            self._error = error

    def _wait(self, last: dict[str, tuple[float, int]]) -> str | None:
        """Until a cut is due, which is named; None when the end has come."""
        while True:
            with self._changed:
                if self._ending:
                    return None
                now, step = time.monotonic(), self._store.fence.step
                waits = [MOST_WAIT_S]
                for name, policy in (("cut", self._cuts), ("whole", self._wholes)):
                    if policy is None:
                        continue
                    at, of = last[name]
                    if policy.is_due(step - of, now - at, True):
                        return name
                    quiet_s, patience_s = policy.due_in_s(now - at)
                    if step > of and patience_s is not None:
                        waits.append(quiet_s or patience_s)
                self._changed.wait(min(waits))

    def relieve(self) -> None:
        """Keep what waits for a cut to a few bytes a row. Behind a step, on any lane."""
        if self._streamer.changed.crowded:
            self._streamer.changed.compact()

    def check(self) -> None:
        """Raises what the thread raised."""
        if self._error is not None:
            raise self._error

    def _stop(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join()

    def finish(self) -> None:
        """Publish what is left, and the mark of the end. Raises what the thread or the transport raised."""
        self._stop()
        self.check()
        self._streamer.finish()

    def abandon(self) -> None:
        """Give the transport back; what is not published stays so. May be called after ``finish``."""
        self._stop()
        self._transport.close()
