"""The built-in codecs over many rows. They release the GIL.

Legend: n rows; w words of the weights, gaps between rows included; m bytes of all encoded rows; d weights of a row.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.rows.codec.formulas import decode_row, encode_row
from pipeline.rows.digest import row_key
from pipeline.rows.xxh64 import xxh64


@njit(nogil=True, cache=True)
def encode_rows(kind, bits_w, dim, stride, row_bytes, out_m):  # type: ignore[no-untyped-def]
    """Rows that are ``stride`` words apart."""
    for n in range(out_m.shape[0] // row_bytes):
        encode_row(kind, bits_w[n * stride : n * stride + dim], out_m[n * row_bytes : (n + 1) * row_bytes])


@njit(nogil=True, cache=True)
def decode_rows(kind, rows_m, dim, row_bytes, bits_m):  # type: ignore[no-untyped-def]
    for n in range(bits_m.shape[0] // dim):
        decode_row(kind, rows_m[n * row_bytes : (n + 1) * row_bytes], bits_m[n * dim : (n + 1) * dim])


@njit(nogil=True, cache=True)
def encode_rows_hashed(  # type: ignore[no-untyped-def]
    kind, bits_w, dim, stride, row_bytes, out_m, keys_t, starts_t, ids_n, steps_mask, versions_n
):
    """``encode_rows``, and ``digest.sum_hashes`` of the rows as they decode, one row after the other while it is in the cache."""
    total = np.uint64(0)
    decoded_d = np.empty(dim, dtype=np.uint32)
    payload = decoded_d.view(np.uint8)
    for t in range(keys_t.shape[0]):
        for n in range(starts_t[t], starts_t[t + 1]):
            row_b = out_m[n * row_bytes : (n + 1) * row_bytes]
            encode_row(kind, bits_w[n * stride : n * stride + dim], row_b)
            decode_row(kind, row_b, decoded_d)
            total += xxh64(payload, 0, 4 * dim, row_key(keys_t[t], ids_n[n], versions_n[n] & steps_mask))
    return total


@njit(nogil=True, cache=True)
def hash_rows(kind, rows_m, dim, row_bytes, keys_t, starts_t, ids_n, steps_mask, versions_n):  # type: ignore[no-untyped-def]
    """``digest.sum_hashes`` of rows as they decode, which is never written down."""
    total = np.uint64(0)
    decoded_d = np.empty(dim, dtype=np.uint32)
    payload = decoded_d.view(np.uint8)
    for t in range(keys_t.shape[0]):
        for n in range(starts_t[t], starts_t[t + 1]):
            decode_row(kind, rows_m[n * row_bytes : (n + 1) * row_bytes], decoded_d)
            total += xxh64(payload, 0, 4 * dim, row_key(keys_t[t], ids_n[n], versions_n[n] & steps_mask))
    return total
