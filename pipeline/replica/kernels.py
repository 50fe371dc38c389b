"""The replica's loops over rows, compiled. They release the GIL.

Legend: n ids of one call; d weights of a row; k blocks. Rows lie in blocks of ``BLOCK_ROWS``: row p is row ``p %
BLOCK_ROWS`` of block ``p // BLOCK_ROWS``. Blocks are passed by address (int64 [k]), because a list of arrays costs more
to pass than to read.
"""

from __future__ import annotations

from typing import Any, Final

from numba import njit, types
from numba.extending import intrinsic
from numba.np.numpy_support import carray

from pipeline.rows.codec.formulas import decode_row
from pipeline.rows.index_kernels import find_position
from pipeline.rows.initial import fill_row
from pipeline.rows.native import ask_for

BLOCK_BITS: Final = 14
BLOCK_ROWS: Final = 1 << BLOCK_BITS
_MASK = BLOCK_ROWS - 1
AHEAD: Final = 8
"""Rows are asked for so long before they are written: they lie anywhere in memory."""
LINE_BYTES: Final = 64


@intrinsic
def _floats_at(_typing, address):  # type: ignore[no-untyped-def]
    """int64 address -> pointer to float32."""
    pointer = types.CPointer(types.float32)  # type: ignore[no-untyped-call]
    return pointer(address), _pointer_at


@intrinsic
def _words_at(_typing, address):  # type: ignore[no-untyped-def]
    """int64 address -> pointer to int64."""
    pointer = types.CPointer(types.int64)  # type: ignore[no-untyped-call]
    return pointer(address), _pointer_at


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
def read_found(entries_c, ids_p, weights_k, versions_k, ids_n, out_nd, versions_n):  # type: ignore[no-untyped-def]
    """Copy weights and version of each id that the index holds; leave the others' places as they are."""
    dim = out_nd.shape[1]
    for n in range(ids_n.shape[0]):
        position = find_position(entries_c, ids_p, ids_n[n])
        if position >= 0:
            block, row = position >> BLOCK_BITS, position & _MASK
            versions_n[n] = carray(_words_at(versions_k[block]), (BLOCK_ROWS,))[row]  # type: ignore[call-arg]
            weights_d = carray(_floats_at(weights_k[block] + row * dim * 4), (dim,))
            for d in range(dim):
                out_nd[n, d] = weights_d[d]


@njit(nogil=True, cache=True)
def read_bytes(entries_c, ids_p, extra_k, ids_n, out_nx):  # type: ignore[no-untyped-def]
    """Copy the bytes beside the weights of each id that the index holds; leave the others' places as they are."""
    width = out_nx.shape[1]
    for n in range(ids_n.shape[0]):
        position = find_position(entries_c, ids_p, ids_n[n])
        if position >= 0:
            row_x = carray(_bytes_at(extra_k[position >> BLOCK_BITS] + (position & _MASK) * width), (width,))  # type: ignore[call-arg]
            for x in range(width):
                out_nx[n, x] = row_x[x]


@njit(nogil=True, cache=True)
def write_bytes(extra_k, positions_n, extra_nx):  # type: ignore[no-untyped-def]
    """Write the bytes beside the weights to positions; the last of two equal positions wins."""
    width = extra_nx.shape[1]
    for n in range(positions_n.shape[0]):
        row_x = carray(_bytes_at(extra_k[positions_n[n] >> BLOCK_BITS] + (positions_n[n] & _MASK) * width), (width,))  # type: ignore[call-arg]
        for x in range(width):
            row_x[x] = extra_nx[n, x]


@njit(nogil=True, cache=True)
def write_rows(weights_k, versions_k, positions_n, rows_nd, new_versions_n):  # type: ignore[no-untyped-def]
    """Write weights and versions to positions; the last of two equal positions wins."""
    dim = rows_nd.shape[1]
    for n in range(positions_n.shape[0]):
        block, row = positions_n[n] >> BLOCK_BITS, positions_n[n] & _MASK
        carray(_words_at(versions_k[block]), (BLOCK_ROWS,))[row] = new_versions_n[n]  # type: ignore[call-arg]
        weights_d = carray(_floats_at(weights_k[block] + row * dim * 4), (dim,))
        for d in range(dim):
            weights_d[d] = rows_nd[n, d]


@njit(nogil=True, cache=True)
def write_encoded(kind, dim, weights_k, versions_k, positions_n, encoded_nb, new_versions_n):  # type: ignore[no-untyped-def]
    """``write_rows`` of rows that come as a built-in codec encodes them (``rows.codec.formulas``)."""
    last = positions_n.shape[0] - 1
    for n in range(last + 1):
        coming = positions_n[min(n + AHEAD, last)]
        coming_row = weights_k[coming >> BLOCK_BITS] + (coming & _MASK) * dim * 4
        for line in range(0, 4 * dim, LINE_BYTES):
            ask_for(coming_row + line)
        ask_for(versions_k[coming >> BLOCK_BITS] + (coming & _MASK) * 8)
        block, row = positions_n[n] >> BLOCK_BITS, positions_n[n] & _MASK
        carray(_words_at(versions_k[block]), (BLOCK_ROWS,))[row] = new_versions_n[n]  # type: ignore[call-arg]
        bits_d = carray(_bits_at(weights_k[block] + row * dim * 4), (dim,))
        decode_row(kind, encoded_nb[n], bits_d)


@njit(nogil=True, cache=True)
def fill_initial(table_key, ids_n, kind, base, scale, stored, out_nd, versions_n):  # type: ignore[no-untyped-def]
    """Give each row whose version is not above 0 its initial weights, and version 0."""
    for n in range(ids_n.shape[0]):
        if versions_n[n] <= 0:
            versions_n[n] = 0
            fill_row(table_key, ids_n[n], kind, base, scale, stored, out_nd[n])
