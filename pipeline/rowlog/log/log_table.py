"""One table of the log: its index, its segments, and the records that are still in memory.

Rules.

1. One lock guards everything here. It is held while memory is copied, never while a file is read or written.
2. ``put`` gives each row a place and makes it visible at once. A row's old record is garbage from then on.
3. A reader takes places and counts itself in at the segments he will read, both under the lock; so what he reads is there
   until he is done, whatever was put meanwhile.
4. An id that is forgotten leaves a record of its own, so that an index made from footers forgets it too; ``garbage`` says for
   how long it is needed.
5. While a checkpoint is being written there is a ``mark`` (``table_mark`` has the rules). Records put before it lie in segments
   below it, and what compaction moves then comes from there.

Legend: n ids of one call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.rowlog.log import garbage
from pipeline.rowlog.log.accounts import Accounts
from pipeline.rowlog.log.records import DEAD, ROW_BITS, MemoryExtents, Records, Rows
from pipeline.rowlog.log.recovery import recover
from pipeline.rowlog.log.row_reads import RowReads, Wanted
from pipeline.rowlog.log.segment import Extent, Kind, OpenSegment, Segment
from pipeline.rowlog.log.segment_format import Footer, check_unpacked, segment_size
from pipeline.rowlog.log.sinks import Sinks
from pipeline.rowlog.log.table_mark import TableMark
from pipeline.rowlog.places import PlaceIndex
from pipeline.rows.spec import TableSpec

Int64s = npt.NDArray[np.int64]
RowBytes = npt.NDArray[np.uint8]
ROW_MASK: Final = (1 << ROW_BITS) - 1
NO_IDS: Final = np.empty(0, dtype=np.int64)
NO_VERSION: Final = np.int64(0)


class LogTable:
    """See the module docstring. ``begin(number)`` makes a new segment's path; it is called under the lock."""

    def __init__(
        self,
        spec: TableSpec,
        sinks: Sinks,
        reads: RowReads,
        begin: Callable[[TableSpec, int], str],
        segment_bytes: int,
        extent_bytes: int,
    ) -> None:
        self.spec, self.records = spec, Records.of(spec)
        self.lock = threading.Lock()
        self.index = PlaceIndex()
        self.max_version = 0
        self._sinks, self._reads, self._begin = sinks, reads, begin
        self.accounts = Accounts(sinks.retire)
        self.segments = self.accounts.segments
        self.capacity = min(self.records.capacity(segment_bytes), ROW_MASK)
        self.full_bytes = segment_size(self.records, self.capacity)
        self._extent_rows = self.records.capacity(min(extent_bytes, segment_bytes))
        self.next_number = 1
        self._filling: dict[Kind, OpenSegment] = {}
        self._unwritten: dict[int, OpenSegment] = {}
        """Segments of which some records are in memory only."""
        self.unsealed: dict[int, OpenSegment] = {}
        """Those whose footer is not in their file."""
        self.mark: TableMark | None = None

    @property
    def slack_rows(self) -> int:
        """Garbage that is never worth moving: two segments are being filled, one may be in the making."""
        return 2 * self.capacity

    @property
    def num_rows(self) -> int:
        """Records in the segments that are needed."""
        return self.accounts.num_rows

    def all_segments(self, *, kept: bool = False) -> list[Segment]:
        """``kept``: those too that are only read or named by checkpoints."""
        with self.lock:
            return [*self.segments.values(), *(self.accounts.kept.values() if kept else ())]

    @property
    def movable_below(self) -> int:
        """Compaction leaves segments alone that were begun after the mark: whoever lists what was put since looks there."""
        mark = self.mark
        return garbage.NOWHERE if mark is None else mark.number

    # What the tier does.

    def put(self, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s) -> None:
        with self.lock:
            self.max_version = max(self.max_version, int(versions_n.max(initial=0)))
            self.accounts.leave(self.index.put(ids_n, self.append(ids_n, rows_nb, versions_n)))

    def delete(self, ids_n: Int64s) -> None:
        with self.lock:
            ids_n = np.unique(ids_n)
            if self.mark is not None:
                self.mark.forgotten.append(ids_n)
            ids_n = ids_n[self.index.find(ids_n) >= 0]
            self.accounts.leave(self.index.remove(ids_n))
            self.bury(ids_n)

    def get(self, ids_n: Int64s, rows: Rows) -> npt.NDArray[np.bool_]:
        """Fill ``rows``, zeros where absent; returns which ids are held. Duplicates allowed."""
        with self.lock:
            places_n = self.index.find(ids_n)
            found_n = places_n >= 0
            wanted = self._take_from_memory(ids_n, places_n, rows)
        if wanted is not None:
            try:
                self._read(ids_n, wanted, rows)
            finally:
                self._done_reading(wanted)
        if not bool(found_n.all()):
            rows.rows_nb[~found_n], rows.versions_n[~found_n] = 0, NO_VERSION
        return found_n

    def ids(self) -> Int64s:
        with self.lock:
            return self.index.ids()

    # What ends segments.

    def rotate(self) -> None:
        """End the segments that are being filled: what is put from now on goes into new ones."""
        with self.lock:
            self.end_all()

    def written(self, filling: OpenSegment, extent: Extent) -> None:
        """An extent is in its file: the memory can go."""
        with self.lock:
            filling.waiting.remove(extent)
            if not filling.waiting:
                self._unwritten.pop(filling.segment.number, None)

    def sealed(self, filling: OpenSegment, size: int, footer: str) -> None:
        """The footer is in the file, and durable."""
        with self.lock:
            segment = filling.segment
            segment.footer = footer
            self.unsealed.pop(segment.number, None)
            if self.mark is not None and segment.number >= self.mark.number and segment.kind is Kind.PUT:
                self.mark.versions[segment.number] = filling.versions_n
            self.accounts.sealed(segment, size)

    # What checkpoints hold.

    def release(self, segments: Sequence[Segment]) -> None:
        """One checkpoint less names them."""
        with self.lock:
            for segment in segments:
                segment.pins -= 1
                self.accounts.settle(segment)

    def restore(
        self,
        segments: Sequence[Segment],
        held: Sequence[Segment],
        footer: Callable[[Segment], Footer],
        expected_rows: int,
        next_number: int,
    ) -> None:
        """Begin with ``segments``; ``held``, these among them, are named by checkpoints. Before anything is put."""
        self.next_number = next_number
        self.max_version = recover(self.index, segments, footer, expected_rows)
        with self.lock:
            self.accounts.restore(segments, held)

    # What compaction does.

    def count_in(self, segment: Segment) -> bool:
        """Keep a segment's file until ``count_out``; False when it has gone already."""
        with self.lock:
            if segment.number not in self.segments:
                return False
            segment.users += 1
            return True

    def count_out(self, segment: Segment) -> None:
        with self.lock:
            segment.users -= 1
            self.accounts.settle(segment)

    def is_held_up(self) -> bool:
        """Whether ``rotate`` would let compaction go on."""
        with self.lock:
            return garbage.is_held_up(self.segments.values())

    # Within the lock.

    def append(self, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s, kind: Kind = Kind.PUT) -> Int64s:
        """Give rows their places, counted as live."""
        places: list[Int64s] = [NO_IDS]
        start = 0
        while start < len(ids_n):
            filling = self._filling.get(kind) or self._open(kind)
            self._unwritten[filling.segment.number] = filling
            some, ready = filling.append(ids_n[start:], rows_nb[start:], versions_n[start:])
            self.accounts.appended(filling.segment, len(some))
            places.append(some)
            start += len(some)
            if ready is not None:
                self._sinks.extent(filling, ready)
            if filling.is_full:
                del self._filling[kind]
                self._sinks.seal(filling)
        return np.concatenate(places)

    def bury(self, ids_n: Int64s) -> None:
        """Append records that forget these ids, distinct ones, so that none of what was appended before is read as theirs again."""
        nothing = np.zeros((len(ids_n), self.records.row_bytes), dtype=np.uint8)
        places_n = self.append(ids_n, nothing, np.full(len(ids_n), self.max_version | DEAD))
        self.accounts.forget(places_n, self.next_number)

    def _open(self, kind: Kind) -> OpenSegment:
        number = self.next_number
        self.next_number += 1
        segment = Segment(number, self._begin(self.spec, number), kind, size=self.full_bytes)
        self.accounts.disk_bytes += segment.size
        filling = OpenSegment(segment, self.records, self.capacity, self._extent_rows)
        self.segments[number] = segment
        self._filling[kind] = self.unsealed[number] = filling
        if self.mark is not None and kind is Kind.SAVED:
            self.mark.name(segment)
        return filling

    def end_all(self) -> None:
        for kind in list(self._filling):
            self.end_kind(kind)

    def end_kind(self, kind: Kind) -> None:
        """End the segment that is being filled with records of a kind, if there is one."""
        filling = self._filling.pop(kind, None)
        if filling is not None:
            last = filling.last_extent()
            if last is not None:
                self._sinks.extent(filling, last)
            self._sinks.seal(filling)

    def _take_from_memory(self, ids_n: Int64s, places_n: Int64s, rows: Rows) -> Wanted | None:
        """Copy what is in memory; say what is in files, and count the reader in there."""
        left_n = np.flatnonzero(places_n >= 0)
        if self._unwritten:
            extents = self._memory_extents()
            found_n = extents.find(places_n)
            self.check_unpacked(self.records.unpack_memory(extents, found_n, places_n, ids_n, rows), ids_n, places_n)
            left_n = left_n[found_n[left_n] < 0]
        if not len(left_n):
            return None
        segments = [self.segments[number] for number in np.unique(places_n[left_n] >> ROW_BITS).tolist()]
        for segment in segments:
            segment.users += 1
        return Wanted(left_n, places_n[left_n], segments)

    def _memory_extents(self) -> MemoryExtents:
        extents = [
            (filling.segment.place(extent.first), extent.count, extent.data.ctypes.data)
            for _, filling in sorted(self._unwritten.items())
            for extent in filling.waiting
        ]
        return MemoryExtents(*np.array(extents, dtype=np.int64).reshape(-1, 3).T.copy())

    # Without the lock.

    def _read(self, ids_n: Int64s, wanted: Wanted, rows: Rows) -> None:
        records = self.records
        files = {segment.number: segment.reading for segment in wanted.segments}
        known_n, at_n = np.unique(wanted.places_n >> ROW_BITS, return_inverse=True)
        files_n = np.array([files[number] for number in known_n.tolist()], dtype=np.int32)[at_n]
        found_nb = np.empty((len(files_n), records.stride), dtype=np.uint8)
        self._reads.read(files_n, records.offsets(wanted.places_n & ROW_MASK), found_nb)
        starts_n = np.arange(len(files_n), dtype=np.int64) * records.stride
        asked_ids_n = ids_n[wanted.asked_n]
        wrong = records.unpack(found_nb.reshape(-1), starts_n, wanted.places_n, asked_ids_n, wanted.asked_n, rows)
        self.check_unpacked(wrong, asked_ids_n, wanted.places_n)

    def check_unpacked(self, wrong: int, ids_n: Int64s, places_n: Int64s) -> None:
        """Raise LogCorrupt for number ``wrong`` of these, unless it is -1 (``Records.unpack``)."""
        check_unpacked(
            wrong, ids_n, places_n, self.records, self.spec.name, lambda number: self._begin(self.spec, number)
        )

    def _done_reading(self, wanted: Wanted) -> None:
        for segment in wanted.segments:
            self.count_out(segment)
