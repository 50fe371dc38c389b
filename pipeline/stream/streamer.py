"""The streamer: turns what changed into cuts and publishes them.

Rules.

1. What changed is taken and the rows are frozen in one visit to the fence, so a cut is the trainer at the end of one
   step.
2. Rows of a cut that was not committed go back to the changed set, with their steps; its number is not used again.
3. A commit frame is published after all frames of its cut, and synced: with it the whole cut is acknowledged.
4. A snapshot cut shares the fence and the number of an ordinary cut, which is published first. Its frames may then
   mix with later cuts'. When it is committed, the transport may forget what lay before that ordinary cut.
5. A fork begins with a rewind cut, before its first step.
6. Where the changed set has collapsed, the rows that changed since the last cut are listed by their versions. Where the source cannot
   do that, or rows may have ended meanwhile, a snapshot cut stands alone in the place of the next cut: replicas drop what it does not
   name. No other cut is made before it is committed.
7. After an error of the transport its epoch is asked for. A storage that lost its data gets a header and a snapshot cut.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.stream.changed import ChangedSet
from pipeline.stream.counters import StreamCounters
from pipeline.stream.cut import CutBuilder
from pipeline.stream.errors import BacklogLeft, SnapshotLost
from pipeline.stream.freezing import Freezer, Frozen, Listed
from pipeline.stream.merging import StepIds
from pipeline.stream.options import StreamerOptions, StreamIdentity
from pipeline.stream.sharded import Outlets, ShardsWriter
from pipeline.stream.source import Int64s, RowSource
from pipeline.stream.taken import NO_STEPS, Waits
from pipeline.wire.frames import START, CommitFrame, CutPosition
from pipeline.wire.transport import Transport

DRAIN_ATTEMPTS = 8


class RowStreamer:
    """See the module docstring. ``add`` belongs to the compute lane; everything else blocks and belongs on other
    lanes.
    """

    _when_drained: Waits | None = None

    def __init__(
        self,
        source: RowSource,
        transport: Transport | Sequence[Transport],
        identity: StreamIdentity,
        options: StreamerOptions | None = None,
        *,
        previous: CutPosition = START,
        previous_step: int = 0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """``transport``: that of the stream, or those of its shards, in order. ``previous`` is the last cut that the stream has already
        committed, taken at ``previous_step``.
        """
        self.options = options or StreamerOptions()
        self.changed = self._changed_set()
        self.counters = StreamCounters()
        self.committed, self.committed_step = previous, previous_step
        """The last cut that was committed, and its step."""
        self.oldest_step: int | None = None
        """The step of the oldest change that this cut left behind; None: none, as ever but in best effort."""
        self._source, self._identity, self._clock = source, identity, clock
        transports = transport if isinstance(transport, list | tuple) else (transport,)
        self._outlet = Outlets(transports, identity, source.tables, self.options.packer, self.counters, clock)
        self._writer = ShardsWriter(self._outlet, source.tables, self.options, self.counters)
        self._tables = self._writer.tables
        self._raw_bytes = {name: 4 * table.spec.dim for name, table in self._tables.items()}
        self._freezer = Freezer(source, self.changed, self._tables, clock, dense=self.options.dense)
        self._last_number = 0
        self.wants_everything = False
        """The storage lost what was published."""
        self._cutting = threading.Lock()
        self._snapshotting = threading.RLock()  # ``finish`` may come to a cut that stands alone

    def open(self) -> None:
        """Claim the transport and publish the header of this generation, acknowledged. Cuts do it where it was not done yet."""
        self._renew()

    def adopt_dictionary(self, dictionary: bytes) -> None:
        """Before the first cut: use what an earlier header brought, where the options have a dictionary, instead of training one."""
        for outlet in self._outlet.each:
            outlet.packer.adopt(dictionary)

    @property
    def is_behind(self) -> bool:
        """Whether there is something that ended and is not published."""
        return self._lacks(self.changed.last_step)

    @property
    def sent_step(self) -> int:
        """All that changed up to this step is published."""
        return self.committed_step if self.oldest_step is None else min(self.committed_step, self.oldest_step - 1)

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
            self._renew()
            frozen = self._source.at_fence(self._freeze_all)
            rows = frozen.everything
            assert rows is not None
            assert frozen.changed.is_empty, "a fork is rewound before its first step"
            frozen.rows.close()
            try:
                position = self._next_position()
                builder = self._builder(position, frozen, rewind=True)
                named = {name: ids_n for name, ids_n in ids.items() if name in self._tables}
                commit = self._writer.write(builder, rows, named, frozen.dense, NO_STEPS)
            finally:
                rows.close()
            self.committed, self.committed_step, self.oldest_step = position, frozen.step, None
        self.counters.add(cuts=1)
        return commit

    def cut(self) -> CommitFrame | None:
        """Publish what changed since the cut before. None when no step ended since, or when the cut was abandoned.

        Raises what the transport raises; then, too, nothing is lost: the rows are in the changed set again. Rules 6 and 7.
        """
        with self._cutting:
            self._renew()
            if not self.wants_everything:
                if not self.changed.num_steps or self.changed.last_step < self.committed_step:
                    return None  # in best effort, one that goes on may know of changes before it has come to the last cut's step again
                frozen = self._visit(self._freeze)
                if not self._freezer.cannot_list(frozen.changed):
                    return self._publish_changed(frozen)
                frozen.close()
                self.changed.put_back(frozen.changed)
        return self.snapshot_cut()

    def snapshot_cut(self) -> CommitFrame | None:
        """Publish an ordinary cut, empty perhaps, and every row held as it stood there; then let the transport forget.

        None when either was abandoned. Cuts may be made meanwhile; a second snapshot cut waits. Where the ordinary one cannot be made
        (rule 6) the other stands alone.
        """
        with self._snapshotting:
            with self._cutting:
                self._renew()
                start = self._outlet.end
                frozen = self._visit(self._freeze_all)
                previous = self.committed
                try:
                    alone = self._freezer.cannot_list(frozen.changed)
                    commit = self._publish_alone(frozen) if alone else self._publish_changed(frozen)
                except BaseException:
                    frozen.close()
                    raise
            if commit is not None and not alone:
                commit = self._publish_everything(frozen, commit, previous)
            frozen.close()
            if commit is not None:
                self.wants_everything = False
                self._outlet.retain_from(start)
            return commit

    def drain(self) -> None:
        """Cut until every step that was added before this call is published, the last one included. Raises
        BacklogLeft.
        """
        target, attempts = self.changed.last_step, 0
        while self._lacks(target):
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
                self._renew()
                position = self._next_position()
                builder = CutBuilder(position, self.committed, self.committed_step, self._clock(), snapshot=False)
                builder.waits = self._when_drained
                commit = replace(builder.commit(NO_STEPS), end=True)
                self._outlet.send((commit,), sync=True)
                self.committed = position
        self.counters.add(cuts=1)
        return commit

    def _lacks(self, step: int) -> bool:
        """Whether something that changed up to ``step`` is not published."""
        return self.committed_step < step or self.wants_everything or self.changed.num_waiting > 0

    def _changed_set(self) -> ChangedSet:
        return ChangedSet(self.options.backlog_bytes)

    def _visit(self, freeze: Callable[[int], Frozen]) -> Frozen:
        """With ``_cutting``."""
        return self._source.at_fence(freeze)

    def _builder(self, position: CutPosition, frozen: Frozen, **what: Any) -> CutBuilder:
        return CutBuilder(position, step=frozen.step, clock_ns=frozen.clock_ns, **{"previous": self.committed, **what})

    def _next_position(self) -> CutPosition:
        self._last_number += 1
        return CutPosition(self._identity.generation, self._last_number)

    def _renew(self) -> None:
        """Before a cut: the transport is claimed and has a header. With ``_cutting``, or before any cut."""
        if self._outlet.renew():
            self.wants_everything = True

    def _freeze_all(self, step: int) -> Frozen:
        return self._freeze(step, with_everything=True)

    def _freeze(self, step: int, with_everything: bool = False) -> Frozen:
        return self._freezer.freeze(step, self.sent_step, with_everything=with_everything)

    def _publish_changed(self, frozen: Frozen) -> CommitFrame | None:
        builder, changed = self._builder(self._next_position(), frozen), frozen.changed
        try:
            commit = None
            if frozen.dense is None and not changed.collapsed:
                commit = self._writer.write_whole(builder, frozen.rows, changed)
            if commit is None:
                changed = frozen.changed = self.changed.distinct(changed)  # what it was made from is let go
                ids = self._ids(frozen)
                commit = self._writer.write(builder, frozen.rows, ids, frozen.dense, changed.ended_k2)
        except SnapshotLost:
            self.changed.put_back(changed)
            self.counters.add(abandoned=1)
            return None
        except BaseException:
            self.changed.put_back(changed)
            raise
        finally:
            frozen.rows.close()
        self._committed(builder, frozen)
        self.counters.add(cuts=1)
        return commit

    def _ids(self, frozen: Frozen) -> Mapping[str, Int64s]:
        if frozen.changed.collapsed:
            return Listed(frozen.rows, tuple(self._tables))
        return {name: pieces[0] for name, pieces in self._freezer.streamed(frozen.changed).items()}

    def _committed(self, builder: CutBuilder, frozen: Frozen) -> None:
        self.changed.published(frozen.changed)
        told = self.changed.rows_told
        self.counters.bytes_if_raw = sum(told[name] * nbytes for name, nbytes in self._raw_bytes.items())
        self.committed, self.committed_step, self.oldest_step = builder.position, frozen.step, None

    def _publish_alone(self, frozen: Frozen) -> CommitFrame | None:
        """Rule 6. It carries the ends of the steps itself."""
        builder = self._builder(self._next_position(), frozen, snapshot=True)
        try:
            commit = self._write_everything(builder, frozen, frozen.changed.ended_k2)
        except BaseException:
            self.changed.put_back(frozen.changed)
            raise
        if commit is None:
            self.changed.put_back(frozen.changed)
        else:
            self._committed(builder, frozen)
        return commit

    def _publish_everything(self, frozen: Frozen, ordinary: CommitFrame, previous: CutPosition) -> CommitFrame | None:
        builder = self._builder(ordinary.position, frozen, previous=previous, snapshot=True)
        return self._write_everything(builder, frozen, NO_STEPS)

    def _write_everything(self, builder: CutBuilder, frozen: Frozen, ended_k2: Int64s) -> CommitFrame | None:
        rows = frozen.everything
        assert rows is not None
        try:
            commit = self._writer.write(builder, rows, Listed(rows, tuple(self._tables)), frozen.dense, ended_k2)
        except SnapshotLost:
            self.counters.add(abandoned=1)
            return None
        finally:
            rows.close()
        self.counters.add(snapshot_cuts=1)
        return commit
