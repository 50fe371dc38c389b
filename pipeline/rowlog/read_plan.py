"""Requests sorted and joined, compiled. A run is some neighbouring requests of one file that one read serves.

Legend: n requests; r runs.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

LAST_OFFSET: Final = 1 << 62
ALL_FIT, OTHERS = -1, -2


@njit(nogil=True, cache=True)
def sort_keys(fds_n, offsets_n, nbytes, keys_n):  # type: ignore[no-untyped-def]
    """Write keys that sort as (fd, offset) does. Returns ALL_FIT, OTHERS where keys do not, or the first request that no file has."""
    fits = True
    for n in range(fds_n.shape[0]):
        fd, offset = np.int64(fds_n[n]), offsets_n[n]
        if offset < 0 or offset > LAST_OFFSET - nbytes:
            return n
        if fd < 0 or fd >= 1 << 20 or offset >= 1 << 43:
            fits = False
        keys_n[n] = fd << 43 | offset
    return ALL_FIT if fits else OTHERS


@njit(nogil=True, cache=True)
def plan_runs(fds_n, offsets_n, order_n, nbytes, align, gap, most, firsts_r):  # type: ignore[no-untyped-def]
    """Cut the ordered requests into runs: ``firsts_r`` int64 [n + 1] gets where in ``order_n`` each begins, and the end.

    ``align`` is 1, or the block to whose bounds reads are widened. A run spans at most ``most`` bytes, unless it is a single request.
    Returns how many there are.
    """
    runs, fd, begin, end = 0, np.int64(-1), np.int64(0), np.int64(0)
    for at in range(order_n.shape[0]):
        n = order_n[at]
        low = offsets_n[n] // align * align
        high = (offsets_n[n] + nbytes + align - 1) // align * align
        if at == 0 or fds_n[n] != fd or low > end + gap or high - begin > most:
            firsts_r[runs] = at
            runs += 1
            fd, begin = np.int64(fds_n[n]), low
        end = high
    firsts_r[runs] = order_n.shape[0]
    return runs
