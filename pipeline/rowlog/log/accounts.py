"""The segments of a table, and how many of their records are live, dead or stale (``garbage``). Callers hold the table's lock.

Legend: n records.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt

from pipeline.rowlog.log import garbage
from pipeline.rowlog.log.records import ROW_BITS
from pipeline.rowlog.log.segment import Segment

Int64s = npt.NDArray[np.int64]


class Accounts:
    """``retire`` takes a segment that nobody uses, reads or names any more; it is nowhere here then."""

    def __init__(self, retire: Callable[[Segment], None]) -> None:
        self.segments: dict[int, Segment] = {}
        """Those with records that somebody may need to know what the table holds now."""
        self.kept: dict[int, Segment] = {}
        """Those that are needed no more, but are still being read, or named by a checkpoint."""
        self.num_rows = 0
        """Records in ``segments``."""
        self.disk_bytes = 0
        """Of all files, ``kept`` ones too; those that are being filled as they will be when they are full."""
        self._retire = retire

    def restore(self, segments: Collection[Segment], held: Collection[Segment]) -> None:
        """Begin with ``segments``, whose counts are known; of ``held`` the others are only named by checkpoints."""
        self.segments.update((segment.number, segment) for segment in segments)
        self.kept.update((segment.number, segment) for segment in held if segment.number not in self.segments)
        self.num_rows = sum(segment.num_rows for segment in segments)
        self.disk_bytes = sum(segment.size for segment in {*segments, *held})
        for segment in segments:
            self.settle(segment)

    def sealed(self, segment: Segment, size: int) -> None:
        """Its file has come to ``size`` bytes."""
        self.disk_bytes += size - segment.size
        segment.sealed, segment.size = True, size
        self.settle(segment)

    def appended(self, segment: Segment, count: int) -> None:
        """So many records were appended, all live."""
        segment.live += count
        self.num_rows += count

    def leave(self, places_n: Int64s) -> None:
        """The records at ``places_n`` (-1: none) were live and are stale."""
        for segment, count in self._count(places_n[places_n >= 0]):
            segment.live -= count
            self.settle(segment)

    def forget(self, places_n: Int64s, below: int) -> None:
        """The records at ``places_n``, just appended, forget their ids; older records of these are in segments below that number."""
        for segment, count in self._count(places_n):
            segment.live -= count
            segment.dead += count
            segment.forgets_below = max(segment.forgets_below, below)
            self.settle(segment)

    def settle(self, segment: Segment) -> None:
        """See whether a segment is still needed for what the table holds now, and if not, whether its file can go."""
        candidates = [segment]
        while candidates:
            one = candidates.pop()
            if one.number in self.segments and self._is_out(one):
                del self.segments[one.number]
                self.num_rows -= one.num_rows
                self.kept[one.number] = one
                # With its stale records, dead ones elsewhere may have lost their purpose.
                candidates += [other for other in self.segments.values() if other.dead and self._is_out(other)]
            if one.number in self.kept and self._is_left(one):
                del self.kept[one.number]
                self.disk_bytes -= one.size
                self._retire(one)

    def _is_out(self, segment: Segment) -> bool:
        if not segment.sealed or segment.live:
            return False
        return not garbage.is_forgetting(segment, self.segments.values())

    def _is_left(self, segment: Segment) -> bool:
        """Whether nobody reads or names a segment."""
        return not segment.users and not segment.pins

    def _count(self, places_n: Int64s) -> list[tuple[Segment, int]]:
        if not len(places_n):
            return []
        numbers_n = places_n >> ROW_BITS
        first = int(numbers_n.min())
        counts_s = np.bincount(numbers_n - first)
        found = np.flatnonzero(counts_s)
        return [
            (self.segments[first + number], count)
            for number, count in zip(found.tolist(), counts_s[found].tolist(), strict=True)
        ]
