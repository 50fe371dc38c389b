"""Copy packed rows between a flat array and rows that lie in several blocks of memory, in one call that holds no lock.

A row's place is one int64: ``block << shift | row in the block``. All rows are whole 8-byte words at 8-byte boundaries.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import carray  # type: ignore[attr-defined]

from pipeline.rows.native import ask_for, pointer
from pipeline.store.compiled import kernel

WORD_BYTES: Final = 8
AHEAD: Final = 6
"""Rows that are asked for ahead of their copy: they lie anywhere in memory."""
MOST_AHEAD_BYTES: Final = 512
"""Of a longer row, the processor sees the rest by itself."""
RowBytes = npt.NDArray[np.uint8]


@kernel
def _copy(  # type: ignore[no-untyped-def]
    places_n, bases_c, shift, stride_words, words, flat_address, flat_words, versions_n, into_blocks
):
    mask = (np.int64(1) << shift) - 1
    has_versions = versions_n.shape[0] > 0
    count = places_n.shape[0]
    for n in range(count):
        ahead = places_n[min(n + AHEAD, count - 1)]
        if ahead >= 0:
            start = bases_c[ahead >> shift] + (ahead & mask) * stride_words * WORD_BYTES
            for line in range(0, min(stride_words * WORD_BYTES, MOST_AHEAD_BYTES), 64):
                ask_for(start + line)
        flat = carray(pointer(flat_address + n * flat_words * WORD_BYTES), (words,), np.int64)
        place = places_n[n]
        if place < 0:
            flat[:] = 0
            if has_versions:
                versions_n[n] = 0
            continue
        address = bases_c[place >> shift] + (place & mask) * stride_words * WORD_BYTES
        row = carray(pointer(address), (stride_words,), np.int64)
        if into_blocks:
            for w in range(words):
                row[w] = flat[w]
            if has_versions:
                row[words] = versions_n[n]
        else:
            for w in range(words):
                flat[w] = row[w]
            if has_versions:
                versions_n[n] = row[words]


_NO_VERSIONS: Final = np.empty(0, dtype=np.int64)


def fetch(
    places_n: npt.NDArray[np.int64],
    bases_c: npt.NDArray[np.int64],
    shift: int,
    stride_bytes: int,
    rows_nb: RowBytes,
    versions_n: npt.NDArray[np.int64] | None = None,
) -> None:
    """Copy the rows at ``places_n`` to ``rows_nb`` [n, bytes]; place -1: zeros. ``versions_n``: also the word behind
    each row.
    """
    _run(places_n, bases_c, shift, stride_bytes, rows_nb, versions_n, False)


def store(
    places_n: npt.NDArray[np.int64],
    bases_c: npt.NDArray[np.int64],
    shift: int,
    stride_bytes: int,
    rows_nb: RowBytes,
    row_bytes: int,
    versions_n: npt.NDArray[np.int64],
) -> None:
    """Copy the first ``row_bytes`` of each of ``rows_nb`` to ``places_n`` and its version into the word behind."""
    _run(places_n, bases_c, shift, stride_bytes, rows_nb, versions_n, True, row_bytes)


def _run(
    places_n: Any,
    bases_c: Any,
    shift: int,
    stride: int,
    rows_nb: Any,
    versions_n: Any,
    into: bool,
    row_bytes: int = -1,
) -> None:
    row_bytes = int(rows_nb.shape[1]) if row_bytes < 0 else row_bytes
    assert row_bytes % WORD_BYTES == stride % WORD_BYTES == rows_nb.shape[1] % WORD_BYTES == 0
    assert rows_nb.flags.c_contiguous
    assert rows_nb.shape[0] == places_n.shape[0]
    versions_n = _NO_VERSIONS if versions_n is None else versions_n
    address, flat_words = rows_nb.ctypes.data, int(rows_nb.shape[1]) // WORD_BYTES
    assert address % WORD_BYTES == 0
    words, stride_words = row_bytes // WORD_BYTES, stride // WORD_BYTES
    _copy(places_n, bases_c, shift, stride_words, words, address, flat_words, versions_n, into)


def aligned_rows(rows_nb: RowBytes) -> RowBytes:
    """``rows_nb`` itself when it is contiguous and on a word boundary, else a copy that is."""
    rows_nb = np.ascontiguousarray(rows_nb)
    return rows_nb if rows_nb.ctypes.data % WORD_BYTES == 0 else rows_nb.copy()
