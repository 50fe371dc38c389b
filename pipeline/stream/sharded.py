"""A streamer's way out in several shards: each is a stream of its own, with its own frames and commit frame for each cut.

Rules.

1. A row goes to the shard that ``rows.sharding`` names; the dense weights ride in shard 0; the ends of the steps in all.
2. The shards of a cut are written side by side, on a thread each while it lasts. The cut is committed when all have acknowledged their
   share. When one fails, those that did not have a commit frame which readers pass over: the number is not used again.
3. Rows are read one shard at a time; encoding, compressing and publishing go on beside each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import TypeVar

from pipeline.rows.sharding import split_by_shard
from pipeline.stream.counters import StreamCounters
from pipeline.stream.cut import CutBuilder
from pipeline.stream.cut_writer import CutWriter
from pipeline.stream.errors import SnapshotLost
from pipeline.stream.options import StreamerOptions, StreamIdentity
from pipeline.stream.outlet import Outlet
from pipeline.stream.packing import Packer
from pipeline.stream.source import Int64s, RowSnapshot, RowsRead
from pipeline.stream.taken import Changed
from pipeline.stream.whole_cut import WholeFrame
from pipeline.wire.dense import DenseArrays
from pipeline.wire.frames import CommitFrame, Frame, StreamedTable
from pipeline.wire.shares import join_commits
from pipeline.wire.transport import Position, Transport

Result = TypeVar("Result")


def shard_identities(identity: StreamIdentity, num_shards: int) -> list[StreamIdentity]:
    """Who writes each of so many shards."""
    return [replace(identity, shard=number, num_shards=num_shards) for number in range(num_shards)]


class Outlets:
    """The ways out of all shards. Raises what the transports raise."""

    def __init__(
        self,
        transports: Sequence[Transport],
        identity: StreamIdentity,
        tables: Sequence[StreamedTable],
        make_packer: Callable[[Sequence[StreamedTable]], Packer],
        counters: StreamCounters,
        clock: Callable[[], int],
    ) -> None:
        self.each = [
            Outlet(transport, named, tables, make_packer(tables), counters, clock)
            for transport, named in zip(transports, shard_identities(identity, len(transports)), strict=True)
        ]
        self._lost = False
        """A shard has begun again, and nobody was told yet."""

    @property
    def identity(self) -> StreamIdentity:
        """Who writes; of the shards the first."""
        return self.each[0].identity

    @identity.setter
    def identity(self, identity: StreamIdentity) -> None:
        for outlet, named in zip(self.each, shard_identities(identity, len(self.each)), strict=True):
            outlet.identity = named

    def renew(self) -> bool:
        """As ``Outlet.renew``, for each shard: whether any has begun again."""
        for outlet in self.each:
            self._lost |= outlet.renew()
        lost, self._lost = self._lost, False
        return lost

    @property
    def end(self) -> tuple[Position, ...]:
        """As ``Transport.end``, of each shard."""
        return tuple(outlet.end for outlet in self.each)

    def send(self, frames: Sequence[Frame | WholeFrame], *, sync: bool) -> None:
        """Publish the same frames on each shard."""
        side_by_side([lambda outlet=outlet: outlet.send(frames, sync=sync) for outlet in self.each])  # type: ignore[misc]

    def retain_from(self, positions: tuple[Position, ...]) -> None:
        """As ``Transport.retain_from``, on each shard."""
        for outlet, position in zip(self.each, positions, strict=True):
            outlet.retain_from(position)


class ShardsWriter:
    """Writes cuts as ``CutWriter`` does, to all shards."""

    def __init__(
        self, outlets: Outlets, tables: Sequence[StreamedTable], options: StreamerOptions, counters: StreamCounters
    ) -> None:
        self._outlets = outlets
        self._each = [CutWriter(outlet, tables, options, counters) for outlet in outlets.each]
        self.tables = self._each[0].tables

    def write_whole(self, builder: CutBuilder, rows: RowSnapshot, changed: Changed) -> CommitFrame | None:
        """As ``CutWriter.write_whole``; with several shards never."""
        return self._each[0].write_whole(builder, rows, changed) if len(self._each) == 1 else None

    def write(
        self,
        builder: CutBuilder,
        rows: RowSnapshot,
        ids: Mapping[str, Int64s],
        dense: DenseArrays | None,
        ended_k2: Int64s,
    ) -> CommitFrame:
        """As ``CutWriter.write``. Returns what the commit frames say together."""
        if len(self._each) == 1:
            return self._each[0].write(builder, rows, ids, dense, ended_k2)
        return self._write_shares(builder, rows, ids, dense, ended_k2)

    def _write_shares(
        self,
        builder: CutBuilder,
        rows: RowSnapshot,
        ids: Mapping[str, Int64s],
        dense: DenseArrays | None,
        ended_k2: Int64s,
    ) -> CommitFrame:
        shared = SharedRows(rows, len(self._each))
        split = split_ids(ids, len(self._each))

        builders = [replace(builder) for _ in self._each]

        def share(number: int) -> Callable[[], CommitFrame]:
            own, carried = builders[number], dense if number == 0 else None
            return lambda: self._each[number].write(own, shared.view(), split[number], carried, ended_k2)

        try:
            return join_commits(side_by_side([share(number) for number in range(len(self._each))]))
        finally:
            builder.num_bytes += sum(own.num_bytes for own in builders)


def split_ids(ids: Mapping[str, Int64s], num_shards: int) -> list[dict[str, Int64s]]:
    """The ids of each shard, by table; tables without any are left out. The order stays."""
    split: list[dict[str, Int64s]] = [{} for _ in range(num_shards)]
    for table, ids_n in ids.items():
        for shard, part_n in zip(split, split_by_shard(table, ids_n, num_shards), strict=True):
            if len(part_n):
                shard[table] = part_n
    return split


def side_by_side(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Make all calls at once and wait for all. Raises what one of them raised: rather than a lost snapshot, anything else."""
    if len(calls) == 1:
        return [calls[0]()]
    with ThreadPoolExecutor(len(calls), thread_name_prefix="rowstream-shard") as pool:
        made = [pool.submit(call) for call in calls]
        wait(made)
    errors = [error for future in made if (error := future.exception()) is not None]
    if errors:
        raise next((error for error in errors if not isinstance(error, SnapshotLost)), errors[0])
    return [future.result() for future in made]


class SharedRows:
    """One snapshot, read by several: by one at a time, and let go when the last has read what it wants."""

    def __init__(self, rows: RowSnapshot, readers: int) -> None:
        self.rows = rows
        self.lock = threading.Lock()
        self._readers = readers

    def view(self) -> SharedView:
        return SharedView(self)

    def leave(self) -> None:
        """A reader needs it no more."""
        with self.lock:
            self._readers -= 1
            if not self._readers:
                self.rows.close()


class SharedView:
    """What one reader has of it."""

    def __init__(self, shared: SharedRows) -> None:
        self._shared, self._closed = shared, False

    @property
    def step(self) -> int:
        return self._shared.rows.step

    def ids(self, table: str) -> Int64s:
        return self._shared.rows.ids(table)

    def read(self, ids: Mapping[str, Int64s]) -> RowsRead:
        with self._shared.lock:
            return self._shared.rows.read(ids)

    def encode(self, *_: object) -> int | None:
        """Never: rows are read."""
        return None

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._shared.leave()
