"""The place index, compiled: see ``kernels`` for entries and rows.

Legend: n ids of one call; c entries, a power of two; p places; k blocks. ``entries_c`` uint64; ids and places int64.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.replica.kernels import AHEAD, HALF, LINE_BYTES, ask_for_entry, ask_for_found, find_entry
from pipeline.rows.index_kernels import EMPTY, LOW_32, close_gap, tag_of


@njit(nogil=True, cache=True)
def find_places(entries_c, rows_k, stride, ids_n, places_n):  # type: ignore[no-untyped-def]
    """Write the place of each id, or -1."""
    last = ids_n.shape[0] - 1
    for n in range(last + 1):
        ask_for_entry(entries_c, ids_n[min(n + 2 * AHEAD, last)])
        ask_for_found(entries_c, rows_k, stride, ids_n[min(n + AHEAD, last)], LINE_BYTES)
        entry = entries_c[find_entry(entries_c, rows_k, stride, tag_of(ids_n[n]), ids_n[n])]
        places_n[n] = np.int64(-1) if entry == EMPTY else np.int64(entry & LOW_32)


@njit(nogil=True, cache=True)
def point_ids(entries_c, rows_k, stride, count, ids_n, start, max_count, places_n, old_n):  # type: ignore[no-untyped-def]
    """Point ids from ``ids_n[start]`` on to their places; the place that each had, or -1, goes to ``old_n``.

    Returns where it stopped: at the end, or where there is no room. ``count`` int64 [1]: how many ids are held.
    """
    last = ids_n.shape[0] - 1
    for n in range(start, last + 1):
        ask_for_entry(entries_c, ids_n[min(n + 2 * AHEAD, last)])
        ask_for_found(entries_c, rows_k, stride, ids_n[min(n + AHEAD, last)], LINE_BYTES)
        tag = tag_of(ids_n[n])
        at = find_entry(entries_c, rows_k, stride, tag, ids_n[n])
        if entries_c[at] == EMPTY:
            if count[0] >= max_count:
                return n
            count[0] += 1
            old_n[n] = -1
        else:
            old_n[n] = np.int64(entries_c[at] & LOW_32)
        entries_c[at] = (tag << HALF) | np.uint64(places_n[n])
    return last + 1


@njit(nogil=True, cache=True)
def detach_ids(entries_c, rows_k, stride, count, ids_n, old_n):  # type: ignore[no-untyped-def]
    """Forget ids; the place that each had, or -1 (also at the second of two equal ids), goes to ``old_n``."""
    for n in range(ids_n.shape[0]):
        at = find_entry(entries_c, rows_k, stride, tag_of(ids_n[n]), ids_n[n])
        old_n[n] = -1
        if entries_c[at] != EMPTY:
            old_n[n] = np.int64(entries_c[at] & LOW_32)
            close_gap(entries_c, at)
            count[0] -= 1


@njit(nogil=True, cache=True)
def keep_first(positions_n, places_n, unset, places_p, spare_n):  # type: ignore[no-untyped-def]
    """Enter places where ``places_p`` is ``unset``; the others that are places go to ``spare_n``. Returns how many these are."""
    num_spare = 0
    for n in range(positions_n.shape[0]):
        if places_p[positions_n[n]] == unset:
            places_p[positions_n[n]] = places_n[n]
        elif places_n[n] >= 0:
            spare_n[num_spare] = places_n[n]
            num_spare += 1
    return num_spare
