"""What compaction does to a table: which records of a segment are needed, and moving them to another one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.rowlog.log import garbage
from pipeline.rowlog.log.log_table import LogTable
from pipeline.rowlog.log.records import ROW_BITS
from pipeline.rowlog.log.segment import Kind, Segment

Int64s = npt.NDArray[np.int64]
RowBytes = npt.NDArray[np.uint8]


def needed_at(
    table: LogTable, segment: Segment, ids_n: Int64s, rows_n: Int64s, versions_n: Int64s
) -> npt.NDArray[np.bool_]:
    """Which records of a segment are the newest of their ids; those that forget an id, while older ones may name it."""
    with table.lock:
        places_n = table.index.find(ids_n)
        is_forgetting = garbage.is_forgetting(segment, table.segments.values())
        forgets_n = (versions_n < 0) & (places_n < 0) & is_forgetting
        needed_n: npt.NDArray[np.bool_] = (places_n == (rows_n | segment.number << ROW_BITS)) | forgets_n
        return needed_n


def move(
    table: LogTable, segment: Segment, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s, from_n: Int64s
) -> int:
    """Put rows of a segment again for compaction, as far as they are still the newest; forgotten ids stay forgotten.

    Returns how many.
    """
    with table.lock:
        dead_n, places_n = versions_n < 0, table.index.find(ids_n)
        keep_n = np.where(dead_n, places_n < 0, places_n == from_n)
        ids_n, from_n, versions_n = ids_n[keep_n], from_n[keep_n], versions_n[keep_n]
        places_n = table.append(ids_n, rows_nb[keep_n], versions_n, Kind.MOVED)
        live_n = ~dead_n[keep_n]
        moved_n = table.index.move(ids_n[live_n], places_n[live_n], from_n[live_n])
        assert bool(moved_n.all()), "the index changed under the lock"
        table.accounts.forget(places_n[~live_n], segment.forgets_below)
        table.accounts.leave(from_n[live_n])
        return len(ids_n)


def emptied(table: LogTable, segment: Segment) -> bool:
    """All that is needed of a segment was moved: it can go, whatever is dead in it. False if that is not so."""
    with table.lock:
        segment.dead = 0
        table.accounts.settle(segment)
        return not segment.live
