"""A segment as the log knows it, and one that still takes records.

Rules.

1. Records are numbered as they come. Those of the extents in ``waiting`` are in memory only, all earlier ones in the file.
2. An extent is written once, whole, when it is full or the segment ends. Its memory goes when the file has it.
3. Whoever reads from the file is counted in ``users``, under the table's lock; the file is removed only when nobody is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

from pipeline.files import WritableFile
from pipeline.rowlog.log.records import ROW_BITS, Records
from pipeline.rowlog.log.segment_format import SealedSegment

Int64s = npt.NDArray[np.int64]
RowBytes = npt.NDArray[np.uint8]


class Kind(Enum):
    """What brought a segment's records. Rows that stay are kept apart from rows that change."""

    PUT = "put"
    MOVED = "moved"
    """By compaction."""
    SAVED = "saved"
    """For a checkpoint: see ``mark``."""


@dataclass(slots=True, eq=False)
class Segment:
    """``live``: how many of its records are the newest of their ids; ``dead``: how many forget theirs. ``pins``: checkpoints
    that name it."""

    number: int
    path: str
    kind: Kind = Kind.PUT
    num_rows: int = 0
    live: int = 0
    dead: int = 0
    forgets_below: int = 0
    """What its dead records forget has older records in segments below this number only."""
    pins: int = 0
    users: int = 0
    sealed: bool = False
    reading: int = -1
    """Its number at ``RowReads``; -1 before the file is there."""
    size: int = 0
    """Bytes of the file; before it is sealed, those it will have when it is full."""
    footer: str = ""
    """Its footer's checksum, 16 hex digits, once it is sealed."""

    @property
    def stale(self) -> int:
        """Records that are older than another one of their id."""
        return self.num_rows - self.live - self.dead

    def place(self, row: int) -> int:
        return self.number << ROW_BITS | row

    def as_sealed(self) -> SealedSegment:
        assert self.sealed
        return SealedSegment(self.path, self.num_rows, self.size, self.footer)


@dataclass(slots=True, eq=False)
class Extent:
    """Consecutive records of one segment in memory, as they will lie in the file."""

    first: int
    data: RowBytes
    room: int
    count: int = 0


@dataclass(slots=True, eq=False)
class OpenSegment:
    """Takes records until ``capacity``. Callers hold the table's lock."""

    segment: Segment
    records: Records
    capacity: int
    extent_rows: int
    """Whole blocks."""
    file: WritableFile | None = None
    """Made by the writing thread, before the first extent is written."""
    waiting: list[Extent] = field(default_factory=list)
    """Oldest first; the last one takes records unless it is full."""
    ids_n: Int64s = field(init=False)
    versions_n: Int64s = field(init=False)

    def __post_init__(self) -> None:
        self.ids_n = np.empty(self.capacity, dtype=np.int64)
        self.versions_n = np.empty(self.capacity, dtype=np.int64)

    @property
    def is_full(self) -> bool:
        return self.segment.num_rows == self.capacity

    def append(self, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s) -> tuple[Int64s, Extent | None]:
        """Take as many records as the extent and the segment have room for, at least one.

        Returns their places, and the extent if it is ready to be written.
        """
        first = self.segment.num_rows
        extent = self._extent(first)
        count = min(len(ids_n), extent.room - extent.count, self.capacity - first)
        start = self.records.data_bytes(extent.count // self.records.per_block * self.records.per_block)
        self.records.pack(
            self.segment.place(first), ids_n[:count], rows_nb[:count], versions_n[:count], extent.data[start:]
        )
        self.ids_n[first : first + count], self.versions_n[first : first + count] = ids_n[:count], versions_n[:count]
        extent.count += count
        self.segment.num_rows += count
        ready = extent.count == extent.room or self.is_full
        return self.segment.place(first) + np.arange(count, dtype=np.int64), extent if ready else None

    def _extent(self, first: int) -> Extent:
        if not self.waiting or self.waiting[-1].count == self.waiting[-1].room:
            room = min(self.extent_rows, self.capacity - first)
            # Zeros: what stands between records must not be whatever was in memory.
            self.waiting.append(Extent(first, np.zeros(self.records.data_bytes(room), dtype=np.uint8), room))
        return self.waiting[-1]

    def last_extent(self) -> Extent | None:
        """The extent that is not full yet, if it holds anything: for whoever ends the segment."""
        last = self.waiting[-1] if self.waiting else None
        return last if last is not None and 0 < last.count < last.room and not self.is_full else None
