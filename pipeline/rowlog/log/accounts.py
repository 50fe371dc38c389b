"""The segments of a table, and how many of their records are live, dead or stale (``garbage``). Callers hold the table's lock.

Legend: n records.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline.rowlog.log import garbage
from pipeline.rowlog.log.records import ROW_BITS
from pipeline.rowlog.log.segment import Segment

Int64s = npt.NDArray[np.int64]


class Accounts:
    """``retire`` takes a segment that nobody reads or names any more; it is not in ``segments`` then."""

    def __init__(self, retire: Callable[[Segment], None]) -> None:
        self.segments: dict[int, Segment] = {}
        self.num_rows = 0
        """Records in all segments."""
        self._retire = retire

    def appended(self, segment: Segment, count: int) -> None:
        """So many records were appended, all live."""
        segment.live += count
        self.num_rows += count

    def leave(self, places_n: Int64s) -> None:
        """The records at ``places_n`` (-1: none) were live and are stale."""
        for segment, count in self._count(places_n[places_n >= 0]):
            segment.live -= count
            self.retire_if_done(segment)

    def forget(self, places_n: Int64s, below: int) -> None:
        """The records at ``places_n``, just appended, forget their ids; older records of these are in segments below that number."""
        for segment, count in self._count(places_n):
            segment.live -= count
            segment.dead += count
            segment.forgets_below = max(segment.forgets_below, below)
            self.retire_if_done(segment)

    def retire_if_done(self, segment: Segment) -> None:
        candidates = [segment]
        while candidates:
            one = candidates.pop()
            if self._is_done(one) and self.segments.pop(one.number, None) is not None:
                self.num_rows -= one.num_rows
                self._retire(one)
                # With its stale records, dead ones elsewhere may have lost their purpose.
                candidates += [other for other in self.segments.values() if other.dead and self._is_done(other)]

    def _is_done(self, segment: Segment) -> bool:
        if not segment.sealed or segment.live or segment.pins or segment.users:
            return False
        return not garbage.is_forgetting(segment, self.segments.values())

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
