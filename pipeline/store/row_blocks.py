"""Copy packed rows that lie in several blocks of memory into a flat array, in one call that holds no lock.

A row's place is one int64: ``block << shift | row in the block``. All rows are whole 8-byte words at 8-byte boundaries.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from numba import carray  # type: ignore[attr-defined]

from pipeline.rows.native import ask_for, pointer
from pipeline.store.compiled import device, kernel

WORD_BYTES: Final = 8
AHEAD: Final = 6
"""Rows that are asked for ahead of their copy: they lie anywhere in memory."""
MOST_AHEAD_BYTES: Final = 512
"""Of a longer row, the processor sees the rest by itself."""
RowBytes = npt.NDArray[np.uint8]


@device
def ask_for_row(address, num_bytes):  # type: ignore[no-untyped-def]
    """Have a row brought near."""
    for line in range(0, min(num_bytes, MOST_AHEAD_BYTES), 64):
        ask_for(address + line)


@kernel
def _copy(places_n, bases_c, shift, stride_words, words, flat_address):  # type: ignore[no-untyped-def]
    mask = (np.int64(1) << shift) - 1
    count = places_n.shape[0]
    for n in range(count):
        ahead = places_n[min(n + AHEAD, count - 1)]
        if ahead >= 0:
            ask_for_row(bases_c[ahead >> shift] + (ahead & mask) * stride_words * WORD_BYTES, stride_words * WORD_BYTES)
        flat = carray(pointer(flat_address + n * words * WORD_BYTES), (words,), np.int64)
        place = places_n[n]
        if place < 0:
            flat[:] = 0
            continue
        address = bases_c[place >> shift] + (place & mask) * stride_words * WORD_BYTES
        row = carray(pointer(address), (words,), np.int64)
        for w in range(words):
            flat[w] = row[w]


def fetch(
    places_n: npt.NDArray[np.int64], bases_c: npt.NDArray[np.int64], shift: int, stride_bytes: int, rows_nb: RowBytes
) -> None:
    """Copy the rows at ``places_n`` to ``rows_nb`` [n, bytes]; place -1: zeros."""
    assert stride_bytes % WORD_BYTES == rows_nb.shape[1] % WORD_BYTES == 0
    assert rows_nb.flags.c_contiguous
    assert rows_nb.shape[0] == places_n.shape[0]
    address, words = rows_nb.ctypes.data, int(rows_nb.shape[1]) // WORD_BYTES
    assert address % WORD_BYTES == 0
    _copy(places_n, bases_c, shift, stride_bytes // WORD_BYTES, words, address)


def aligned_rows(rows_nb: RowBytes) -> RowBytes:
    """``rows_nb`` itself when it is contiguous and on a word boundary, else a copy that is."""
    rows_nb = np.ascontiguousarray(rows_nb)
    return rows_nb if rows_nb.ctypes.data % WORD_BYTES == 0 else rows_nb.copy()
