"""The index of a table, made anew from the footers of its segments: no record is read.

Rules.

1. Of the records of an id the one with the highest version is the newest, wherever it lies: compaction moves old records to new
   segments, and a checkpoint saves old rows beside newer ones. One that forgets the id wins a tie. Two of one version hold
   the same row.
2. An id whose newest record forgets it is not held.

Legend: n records of one segment; r records of all segments.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.rowlog.log.records import ROW_BITS
from pipeline.rowlog.log.segment import Segment
from pipeline.rowlog.log.segment_format import Footer
from pipeline.rowlog.places import PlaceIndex
from pipeline.rowlog.places_recovery import Recovery

Int64s = npt.NDArray[np.int64]
MOST_THREADS: Final = 8
VERSION_BITS = np.int64((1 << 63) - 1)


def recover(
    index: PlaceIndex, segments: Sequence[Segment], footer: Callable[[Segment], Footer], expected_rows: int
) -> int:
    """Fill an empty index, and count what is live and dead in each segment. Returns the highest version.

    Memory beside the index: 8 bytes a record, and one footer at a time (twice read, if something was forgotten).
    """
    by_number = {segment.number: segment for segment in segments}
    bases_s = np.zeros(max(by_number, default=0) + 1, dtype=np.int64)
    total = 0
    for segment in segments:
        bases_s[segment.number] = total
        total += segment.num_rows
    versions_r, forgetful = np.empty(total, dtype=np.int64), []
    index.reserve(min(total, expected_rows))
    with Recovery(index, min(os.cpu_count() or 1, MOST_THREADS), versions_r, bases_s) as recovery:
        for segment in segments:
            ids_n, versions_n = footer(segment)
            start = int(bases_s[segment.number])
            versions_r[start : start + len(ids_n)] = versions_n
            if bool((versions_n < 0).any()):
                forgetful.append(segment)
            segment.live += len(ids_n)
            older_n = recovery.enter(ids_n, _places(segment))
            _count_out(by_number, older_n[older_n >= 0])
    for segment in forgetful:
        ids_n, versions_n = footer(segment)
        places_n = _places(segment)
        forgets_n = (versions_n < 0) & (index.find(ids_n) == places_n)
        index.remove(ids_n[forgets_n])
        count = int(np.count_nonzero(forgets_n))
        segment.live -= count
        segment.dead += count
        segment.forgets_below = len(bases_s)
    return int((versions_r & VERSION_BITS).max(initial=0))


def _places(segment: Segment) -> Int64s:
    return np.arange(segment.num_rows, dtype=np.int64) | segment.number << ROW_BITS


def _count_out(by_number: dict[int, Segment], places_n: Int64s) -> None:
    """The records at ``places_n`` are older than others of their ids."""
    counts_s = np.bincount(places_n >> ROW_BITS)
    for number in np.flatnonzero(counts_s).tolist():
        by_number[number].live -= int(counts_s[number])
