"""The sketch of admission, compiled: a count-min sketch whose hashes are fixed. It holds no lock and keeps no state.

Row r of the sketch counts an id in cell ``mix(id + (r + 1) * GAMMA) mod width`` (``rows.initial``); an id's count is the least of its
cells, so never below the true one. Legend: w cells of a row, a power of two; n distinct ids of one call.
"""

from __future__ import annotations

import numpy as np

from pipeline.rows.initial import GAMMA, mix
from pipeline.store.compiled import device, kernel

MOST = 2**32 - 1


@device
def _cell(row, row_id, width):  # type: ignore[no-untyped-def]
    return np.int64(mix(np.uint64(row_id) + np.uint64(row + 1) * GAMMA) & np.uint64(width - 1))


@kernel
def estimate(cells_rw, ids_n, counts_n):  # type: ignore[no-untyped-def]
    """Write how often each id was counted, at most, to ``counts_n`` int64 [n]."""
    depth, width = cells_rw.shape
    for n in range(ids_n.shape[0]):
        least = np.int64(MOST)
        for row in range(depth):
            least = min(least, np.int64(cells_rw[row, _cell(row, ids_n[n], width)]))
        counts_n[n] = least


@kernel
def add(cells_rw, ids_n, times_n):  # type: ignore[no-untyped-def]
    """Count each id ``times_n`` int64 [n] times. A cell that is full stays full."""
    depth, width = cells_rw.shape
    for n in range(ids_n.shape[0]):
        for row in range(depth):
            cell = _cell(row, ids_n[n], width)
            cells_rw[row, cell] = np.uint32(min(np.int64(cells_rw[row, cell]) + times_n[n], np.int64(MOST)))
