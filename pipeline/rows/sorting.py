"""Sorting ids, several tables in one call."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def sort_distinct(ids_n, starts_t):  # type: ignore[no-untyped-def]
    """Sort each run ``starts_t[t] .. starts_t[t + 1]`` of int64 ids in place and move its distinct ones to its front.

    Returns int64 [t]: how many those are. What stands behind them in a run means nothing.
    """
    counts_t = np.zeros(starts_t.shape[0] - 1, dtype=np.int64)
    for t in range(counts_t.shape[0]):
        run = ids_n[starts_t[t] : starts_t[t + 1]]
        run.sort()
        count = 0
        for n in range(run.shape[0]):
            if count == 0 or run[n] != run[count - 1]:
                run[count] = run[n]
                count += 1
        counts_t[t] = count
    return counts_t
