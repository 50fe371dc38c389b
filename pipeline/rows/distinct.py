"""Distinct ids of several tables at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Int64s = npt.NDArray[np.int64]


def union(*pieces: Int64s) -> Int64s:
    """Each id of any of them once, rising. By sorting: many times as fast as ``numpy.union1d`` where there are millions."""
    merged_n = np.concatenate(pieces)
    merged_n.sort()
    count = int(drop_repeats(merged_n, np.array([0, merged_n.shape[0]]))[0])
    merged_n.resize(count, refcheck=False)  # gives back what was merged away
    return merged_n


@njit(nogil=True, cache=True)
def drop_repeats(ids_n, starts_t):  # type: ignore[no-untyped-def]
    """Move the distinct ids of each run ``starts_t[t] .. starts_t[t + 1]`` of sorted int64 to its front.

    Returns int64 [t]: how many those are. What stands behind them in a run means nothing.
    """
    counts_t = np.zeros(starts_t.shape[0] - 1, dtype=np.int64)
    for t in range(counts_t.shape[0]):
        run = ids_n[starts_t[t] : starts_t[t + 1]]
        count = 0
        for n in range(run.shape[0]):
            if count == 0 or run[n] != run[count - 1]:
                run[count] = run[n]
                count += 1
        counts_t[t] = count
    return counts_t
