"""The streamer: turns what changed into cuts and publishes them.

Rules.

1. What changed is taken and the rows are frozen in one visit to the fence, so a cut is the trainer at the end of one
   step.
2. Rows of a cut that was not committed go back to the changed set, with their steps; its number is not used again.
3. A commit frame is published after all frames of its cut, and synced: with it the whole cut is acknowledged.
4. A snapshot cut shares the fence and the number of an ordinary cut, which is published first. Its frames may then
   mix with later cuts'. When it is committed, the transport may forget what lay before that ordinary cut.
5. A fork begins with a rewind cut, before its first step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from pipeline.stream.changed import NO_STEPS, Changed, ChangedSet, StepIds
from pipeline.stream.counters import StreamCounters
from pipeline.stream.cut import CutBuilder
from pipeline.stream.cut_writer import CutWriter
from pipeline.stream.errors import BacklogLeft, SnapshotLost
from pipeline.stream.options import StreamerOptions, StreamIdentity
from pipeline.stream.outlet import Outlet
from pipeline.stream.source import Int64s, RowSnapshot, RowSource
from pipeline.wire.dense import DenseArrays
from pipeline.wire.frames import START, CommitFrame, CutPosition
from pipeline.wire.transport import Transport

DRAIN_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class _Frozen:
    """What one visit to the fence brought."""

    step: int
    clock_ns: int
    changed: Changed
    rows: RowSnapshot
    dense: DenseArrays | None
    everything: RowSnapshot | None


class RowStreamer:
    """See the module docstring. ``add`` belongs to the compute lane; everything else blocks and belongs on other
    lanes.
    """

    def __init__(
        self,
        source: RowSource,
        transport: Transport,
        identity: StreamIdentity,
        options: StreamerOptions | None = None,
        *,
        previous: CutPosition = START,
        previous_step: int = 0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """``previous`` is the last cut that the stream has already committed, taken at ``previous_step``."""
        self.options = options or StreamerOptions()
        self.changed = ChangedSet()
        self.counters = StreamCounters()
        self.committed, self.committed_step = previous, previous_step
        """The last cut that was committed, and its step."""
        self._source = source
        self._identity = identity
        self._clock = clock
        self._outlet = Outlet(transport, identity, source.tables, self.options.zstd_level, self.counters, clock)
        self._writer = CutWriter(self._outlet, source.tables, self.options, self.counters)
        self._tables = self._writer.tables
        self._raw_bytes = {name: 4 * table.spec.dim for name, table in self._tables.items()}
        self._last_number = 0
        self._cutting = threading.Lock()
        self._snapshotting = threading.Lock()

    def open(self) -> None:
        """Claim the transport and publish the header of this generation, acknowledged."""
        self._outlet.open()

    def add(self, step: int, clock_ns: int, ids: StepIds, count: int | None = None) -> None:
        """Inside the fence: ``step`` ended at ``clock_ns`` (wall) and updated these rows, ``count`` in all.

        ``ids`` is kept, and asked for its arrays later, on other threads: what they hold must not change any more. Tables
        that are not streamed are passed over.
        """
        self.changed.add(step, clock_ns, ids, count)

    def forget(self, ids: StepIds) -> None:
        """Inside the fence, before ``add`` of the step that ends these rows: the source holds them no more. Keeps ``ids``."""
        self.changed.add_ended(ids)

    def rewind(self, ids: Mapping[str, Int64s]) -> CommitFrame:
        """Publish the first cut of a fork: rows as they stand, distinct ids by table, tombstones for those that are not held. Its step
        may be lower than that of the cut before. Before the first step. Raises what the transport raises, and SnapshotLost.
        """
        with self._cutting:
            frozen = self._source.at_fence(self._freeze_all)
            rows = frozen.everything
            assert rows is not None
            assert frozen.changed.is_empty, "a fork is rewound before its first step"
            frozen.rows.close()
            try:
                position = self._next_position()
                builder = CutBuilder(
                    position, self.committed, frozen.step, frozen.clock_ns, snapshot=False, rewind=True
                )
                named = {name: ids_n for name, ids_n in ids.items() if name in self._tables}
                commit = self._writer.write(builder, rows, named, frozen.dense, NO_STEPS)
            finally:
                rows.close()
            self.committed, self.committed_step = position, frozen.step
        self.counters.add(cuts=1)
        return commit

    def cut(self) -> CommitFrame | None:
        """Publish what changed since the cut before. None when no step ended since, or when the cut was abandoned.

        Raises what the transport raises; then, too, nothing is lost: the rows are in the changed set again.
        """
        with self._cutting:
            if not self.changed.num_steps:
                return None
            return self._publish_changed(self._source.at_fence(self._freeze))

    def snapshot_cut(self) -> CommitFrame | None:
        """Publish an ordinary cut, empty perhaps, and every row held as it stood there; then let the transport forget.

        None when either was abandoned. Cuts may be made meanwhile; a second snapshot cut waits.
        """
        with self._snapshotting:
            with self._cutting:
                start = self._outlet.end
                frozen = self._source.at_fence(self._freeze_all)
                assert frozen.everything is not None
                previous = self.committed
                try:
                    ordinary = self._publish_changed(frozen)
                except BaseException:
                    frozen.everything.close()
                    raise
            if ordinary is None:
                frozen.everything.close()
                return None
            commit = self._publish_everything(frozen, ordinary, previous)
            if commit is not None:
                self._outlet.retain_from(start)
            return commit

    def drain(self) -> None:
        """Cut until every step that was added before this call is published, the last one included. Raises
        BacklogLeft.
        """
        target, attempts = self.changed.last_step, 0
        while self.committed_step < target:
            attempts = 0 if self.cut() is not None else attempts + 1
            if attempts == DRAIN_ATTEMPTS:
                raise BacklogLeft(self.changed.count, target, attempts)

    def finish(self) -> CommitFrame:
        """``drain``, then publish an empty cut with the end mark: a follower knows that it has everything.

        Waits for a snapshot cut that is being made.
        """
        with self._snapshotting:
            self.drain()
            with self._cutting:
                position = self._next_position()
                builder = CutBuilder(position, self.committed, self.committed_step, self._clock(), snapshot=False)
                commit = replace(builder.commit(NO_STEPS), end=True)
                self._outlet.send((commit,), sync=True)
                self.committed = position
        self.counters.add(cuts=1)
        return commit

    def _next_position(self) -> CutPosition:
        self._last_number += 1
        return CutPosition(self._identity.generation, self._last_number)

    def _freeze_all(self, step: int) -> _Frozen:
        return self._freeze(step, with_everything=True)

    def _freeze(self, step: int, with_everything: bool = False) -> _Frozen:
        """Inside the fence: swap references. What was done is undone if the source fails."""
        with ExitStack() as undo:
            changed = self.changed.take()
            undo.callback(self.changed.put_back, changed)
            rows = self._source.freeze(lambda: self._streamed(changed), changed_since=self.committed_step)
            undo.callback(rows.close)
            everything = self._source.freeze("all", changed_since=0) if with_everything else None
            if everything is not None:
                undo.callback(everything.close)
            dense = self._source.dense() if self.options.dense else None
            undo.pop_all()
        return _Frozen(step, self._clock(), changed, rows, dense, everything)

    def _publish_changed(self, frozen: _Frozen) -> CommitFrame | None:
        position = self._next_position()
        builder = CutBuilder(position, self.committed, frozen.step, frozen.clock_ns, snapshot=False)
        changed = frozen.changed
        try:
            commit = None if frozen.dense is not None else self._writer.write_whole(builder, frozen.rows, changed)
            if commit is None:
                changed = self.changed.distinct(changed)
                ids = {name: pieces[0] for name, pieces in self._streamed(changed).items()}
                commit = self._writer.write(builder, frozen.rows, ids, frozen.dense, changed.ended_k2)
            else:
                self.changed.count_told(changed.told)
            self._count_raw()
        except SnapshotLost:
            self.changed.put_back(changed)
            self.counters.add(abandoned=1)
            return None
        except BaseException:
            self.changed.put_back(changed)
            raise
        finally:
            frozen.rows.close()
        self.committed, self.committed_step = position, frozen.step
        self.counters.add(cuts=1)
        return commit

    def _streamed(self, changed: Changed) -> Mapping[str, Sequence[Int64s]]:
        return {name: pieces for name, pieces in changed.by_table().items() if name in self._tables}

    def _count_raw(self) -> None:
        told = self.changed.rows_told
        self.counters.bytes_if_raw = sum(told[name] * nbytes for name, nbytes in self._raw_bytes.items())

    def _publish_everything(self, frozen: _Frozen, ordinary: CommitFrame, previous: CutPosition) -> CommitFrame | None:
        rows = frozen.everything
        assert rows is not None
        builder = CutBuilder(ordinary.position, previous, frozen.step, frozen.clock_ns, snapshot=True)
        try:
            ids = {name: rows.ids(name) for name in self._tables}
            commit = self._writer.write(builder, rows, ids, frozen.dense, ordinary.ended_k2[:0])
        except SnapshotLost:
            self.counters.add(abandoned=1)
            return None
        finally:
            rows.close()
        self.counters.add(snapshot_cuts=1)
        return commit
