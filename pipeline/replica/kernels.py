"""The replica's loops over rows, compiled. They release the GIL.

Rows lie in blocks of ``BLOCK_ROWS``: place p is row ``p % BLOCK_ROWS`` of block ``p // BLOCK_ROWS``. A row is a record of ``stride``
bytes, a multiple of 8: id, version (int64 each), weights (float32), the bytes beside them, and up to 7 that mean nothing. So whoever
finds a row by its id has the beginning of what is read. Blocks are passed by address (``rows_k`` int64 [k]), because a list of arrays
costs more to pass than to read.

An index (``place_kernels``) has entries as ``rows.index_kernels`` describes them, whose low 32 bits are a place.

Legend: n rows of one call; d weights of a row; x bytes beside them; k blocks; c entries.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numba.np.numpy_support import carray

from pipeline.rows.codec.formulas import decode_row
from pipeline.rows.index_kernels import EMPTY, LOW_32, tag_of
from pipeline.rows.initial import fill_row
from pipeline.rows.native import ask_for, ask_to_read, read_word, write_word

BLOCK_BITS: Final = 14
BLOCK_ROWS: Final = 1 << BLOCK_BITS
_MASK = BLOCK_ROWS - 1
AHEAD: Final = 12
"""Rows are asked for so long before they are read or written, and what leads to them twice as long: they lie anywhere in memory."""
LINE_BYTES: Final = 64
VERSION_AT: Final = 8
WEIGHTS_AT: Final = 16
ABSENT: Final = -2
"""In the place of a place: the row was absent then. -1: nothing is known of it."""
ONE, HALF = np.uint64(1), np.uint64(32)


def row_stride(dim: int, extra_bytes: int) -> int:
    """Bytes from one row to the next."""
    return (WEIGHTS_AT + 4 * dim + extra_bytes + 7) // 8 * 8


@intrinsic
def _bytes_at(_typing, address):  # type: ignore[no-untyped-def]
    """int64 address -> pointer to uint8."""
    pointer = types.CPointer(types.uint8)  # type: ignore[no-untyped-call]
    return pointer(address), _pointer_at


@intrinsic
def _bits_at(_typing, address):  # type: ignore[no-untyped-def]
    """int64 address -> pointer to uint32."""
    pointer = types.CPointer(types.uint32)  # type: ignore[no-untyped-call]
    return pointer(address), _pointer_at


def _pointer_at(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.inttoptr(args[0], context.get_value_type(signature.return_type))


@njit(nogil=True, cache=True)
def row_at(rows_k, stride, place):  # type: ignore[no-untyped-def]
    """The address of the row at a place."""
    return rows_k[place >> BLOCK_BITS] + (place & _MASK) * stride


@njit(nogil=True, cache=True)
def find_entry(entries_c, rows_k, stride, tag, row_id):  # type: ignore[no-untyped-def]
    """Where the entry of an id is, or the empty one where its search ends."""
    mask = np.uint64(entries_c.shape[0] - 1)
    at = tag & mask
    while True:
        entry = entries_c[at]
        if entry == EMPTY:
            return at
        if entry >> HALF == tag and read_word(row_at(rows_k, stride, np.int64(entry & LOW_32))) == row_id:
            return at
        at = (at + ONE) & mask


@njit(nogil=True, cache=True)
def ask_for_entry(entries_c, row_id):  # type: ignore[no-untyped-def]
    """Have the entry near where the search for an id begins. Returns nothing of use."""
    ask_to_read(entries_c.ctypes.data + 8 * np.int64(tag_of(row_id) & np.uint64(entries_c.shape[0] - 1)))


@njit(nogil=True, cache=True)
def ask_for_found(entries_c, rows_k, stride, row_id, nbytes):  # type: ignore[no-untyped-def]
    """Have near what most likely is the row of an id: so many bytes from its beginning."""
    entry = entries_c[tag_of(row_id) & np.uint64(entries_c.shape[0] - 1)]
    if entry != EMPTY:
        row = row_at(rows_k, stride, np.int64(entry & LOW_32))
        for line in range(0, nbytes, LINE_BYTES):
            ask_to_read(row + line)


@njit(nogil=True, cache=True)
def _copy_row(row, out_bits_nd, n, versions_n):  # type: ignore[no-untyped-def]
    """Weights and version of the row at an address."""
    dim = out_bits_nd.shape[1]
    versions_n[n] = read_word(row + VERSION_AT)
    bits_d = carray(_bits_at(row + WEIGHTS_AT), (dim,))  # type: ignore[call-arg]
    for d in range(dim):
        out_bits_nd[n, d] = bits_d[d]


@njit(nogil=True, cache=True)
def read_found(entries_c, rows_k, stride, ids_n, out_bits_nd, versions_n):  # type: ignore[no-untyped-def]
    """Copy weights (as uint32) and version of each id that is held; leave the others' as they are."""
    last, nbytes = ids_n.shape[0] - 1, WEIGHTS_AT + 4 * out_bits_nd.shape[1]
    for n in range(last + 1):
        ask_for_entry(entries_c, ids_n[min(n + 2 * AHEAD, last)])
        ask_for_found(entries_c, rows_k, stride, ids_n[min(n + AHEAD, last)], nbytes)
        entry = entries_c[find_entry(entries_c, rows_k, stride, tag_of(ids_n[n]), ids_n[n])]
        if entry != EMPTY:
            _copy_row(row_at(rows_k, stride, np.int64(entry & LOW_32)), out_bits_nd, n, versions_n)


@njit(nogil=True, cache=True)
def read_rows(rows_k, stride, places_n, out_bits_nd, versions_n):  # type: ignore[no-untyped-def]
    """Copy weights (as uint32) and version at each place; of an ``ABSENT`` row that is the version; leave what stands for -1 as it is."""
    for n in range(places_n.shape[0]):
        if places_n[n] >= 0:
            _copy_row(row_at(rows_k, stride, places_n[n]), out_bits_nd, n, versions_n)
        elif places_n[n] == ABSENT:
            versions_n[n] = ABSENT


@njit(nogil=True, cache=True)
def read_ids(rows_k, stride, places_n, ids_n):  # type: ignore[no-untyped-def]
    """Whose rows lie there."""
    for n in range(places_n.shape[0]):
        ids_n[n] = read_word(row_at(rows_k, stride, places_n[n]))


@njit(nogil=True, cache=True)
def read_bytes(rows_k, stride, at, places_n, out_nx):  # type: ignore[no-untyped-def]
    """Copy the bytes beside the weights, which begin ``at`` bytes behind a row's beginning; zeros of an ``ABSENT`` row; -1 as before."""
    width = out_nx.shape[1]
    for n in range(places_n.shape[0]):
        if places_n[n] >= 0:
            row_x = carray(_bytes_at(row_at(rows_k, stride, places_n[n]) + at), (width,))  # type: ignore[call-arg]
            for x in range(width):
                out_nx[n, x] = row_x[x]
        elif places_n[n] == ABSENT:
            for x in range(width):
                out_nx[n, x] = 0


@njit(nogil=True, cache=True)
def write_bytes(rows_k, stride, at, places_n, extra_nx):  # type: ignore[no-untyped-def]
    """Write the bytes beside the weights."""
    width = extra_nx.shape[1]
    for n in range(places_n.shape[0]):
        row_x = carray(_bytes_at(row_at(rows_k, stride, places_n[n]) + at), (width,))  # type: ignore[call-arg]
        for x in range(width):
            row_x[x] = extra_nx[n, x]


@njit(nogil=True, cache=True)
def write_rows(rows_k, stride, places_n, ids_n, new_versions_n, bits_nd):  # type: ignore[no-untyped-def]
    """Write ids, versions and weights (as uint32) to places."""
    dim = bits_nd.shape[1]
    for n in range(places_n.shape[0]):
        row = row_at(rows_k, stride, places_n[n])
        write_word(row, ids_n[n])
        write_word(row + VERSION_AT, new_versions_n[n])
        bits_d = carray(_bits_at(row + WEIGHTS_AT), (dim,))  # type: ignore[call-arg]
        for d in range(dim):
            bits_d[d] = bits_nd[n, d]


@njit(nogil=True, cache=True)
def write_encoded(kind, dim, rows_k, stride, places_n, ids_n, new_versions_n, encoded_nb):  # type: ignore[no-untyped-def]
    """``write_rows`` of weights that come as a built-in codec encodes them (``rows.codec.formulas``)."""
    last, nbytes = places_n.shape[0] - 1, WEIGHTS_AT + 4 * dim
    for n in range(last + 1):
        coming = row_at(rows_k, stride, places_n[min(n + AHEAD, last)])
        for line in range(0, nbytes, LINE_BYTES):
            ask_for(coming + line)
        row = row_at(rows_k, stride, places_n[n])
        write_word(row, ids_n[n])
        write_word(row + VERSION_AT, new_versions_n[n])
        bits_d = carray(_bits_at(row + WEIGHTS_AT), (dim,))  # type: ignore[call-arg]
        decode_row(kind, encoded_nb[n], bits_d)


@njit(nogil=True, cache=True)
def fill_initial(table_key, ids_n, kind, base, scale, stored, out_nd, versions_n):  # type: ignore[no-untyped-def]
    """Give each row whose version is not above 0 its initial weights, and version 0."""
    for n in range(ids_n.shape[0]):
        if versions_n[n] <= 0:
            versions_n[n] = 0
            fill_row(table_key, ids_n[n], kind, base, scale, stored, out_nd[n])
