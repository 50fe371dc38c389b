"""Text ids to 64-bit ids, by the named hash ``xxh64``: XXH64 over the UTF-8 bytes, with a seed, read as int64.

The hash does not depend on the process, the machine or the order of values. Two texts may share a hash: among n
distinct ones the chance is about n**2 / 2**65 (for ten million, 3 in a million).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from pipeline.rows.arrays import read_only
from pipeline.rows.errors import BadShape
from pipeline.rows.xxh64 import xxh64

HASH_NAME = "xxh64"
Int64s = npt.NDArray[np.int64]


@njit(nogil=True, cache=True)
def _hash_spans(offsets_n1, data_m, seed, hashes_n):  # type: ignore[no-untyped-def]
    for n in range(hashes_n.shape[0]):
        start = offsets_n1[n]
        hashes_n[n] = np.int64(xxh64(data_m, start, offsets_n1[n + 1] - start, seed))


def hash_spans(offsets: Any, data: Any, validity: Any = None, seed: int = 0) -> Int64s:
    """Hash ``data[offsets[n] : offsets[n + 1]]`` for each n. int64 [n].

    ``offsets`` int32 or int64 [n + 1], ascending; ``data`` uint8; ``validity`` bool [n] or None: 0 where False, and
    what lies there is not read into the result. Raises BadShape.
    """
    offsets_n1, data_m = read_only(offsets, np.int64), read_only(data, np.uint8)
    if offsets_n1.ndim != 1 or offsets_n1.shape[0] < 1 or (np.diff(offsets_n1) < 0).any():
        raise BadShape(f"offsets {offsets_n1.shape}: need [n + 1], ascending")
    if offsets_n1[0] < 0 or offsets_n1[-1] > data_m.shape[0]:
        raise BadShape(f"offsets {offsets_n1[0]} .. {offsets_n1[-1]} leave the {data_m.shape[0]} bytes of data")
    hashes_n = np.empty(offsets_n1.shape[0] - 1, dtype=np.int64)
    _hash_spans(offsets_n1, data_m, np.uint64(seed & 0xFFFFFFFFFFFFFFFF), hashes_n)
    if validity is not None:
        hashes_n[~np.asarray(validity, dtype=np.bool_)] = 0
    return hashes_n


def hash_text(values: Any, seed: int = 0) -> Int64s:
    """The ids of texts, int64 [n]. A null gives 0: callers that can meet one look at the validity first.

    ``values``: a pyarrow array (string, binary, their large, view and dictionary forms, chunked or not), or a list of
    str or bytes. Raises TypeError for anything else.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(values, pa.Array | pa.ChunkedArray):
        values = pa.array([value.encode() if isinstance(value, str) else value for value in values], pa.large_binary())
    if isinstance(values, pa.ChunkedArray):
        chunks = [hash_text(chunk, seed) for chunk in values.chunks]
        return np.concatenate(chunks) if chunks else np.empty(0, dtype=np.int64)
    if pa.types.is_dictionary(values.type):
        return _hash_dictionary(values, seed)
    kind = values.type
    if not (pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)):
        if not (pa.types.is_string(kind) or pa.types.is_binary(kind) or kind in (pa.string_view(), pa.binary_view())):
            raise TypeError(f"text ids come as strings or bytes; got a column of {kind}")
        values = pc.cast(values, pa.large_binary() if "binary" in str(kind) else pa.large_string())
    return _hash_large(values, seed)


def _hash_large(values: Any, seed: int) -> Int64s:
    """``values``: a large_string or large_binary array, which may be a slice."""
    _, offsets, data = values.buffers()
    if len(values) == 0:
        return np.empty(0, dtype=np.int64)
    offsets_n1 = np.frombuffer(offsets, dtype=np.int64, count=len(values) + 1, offset=8 * values.offset)
    data_m = np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, dtype=np.uint8)
    validity = values.is_valid().to_numpy(zero_copy_only=False) if values.null_count else None
    return hash_spans(offsets_n1, data_m, validity, seed)


def _hash_dictionary(values: Any, seed: int) -> Int64s:
    import pyarrow as pa

    distinct = np.append(hash_text(values.dictionary, seed), np.int64(0))
    indices = values.indices.cast(pa.int64()).fill_null(len(distinct) - 1)
    hashes_n: Int64s = distinct[indices.to_numpy()]
    return hashes_n
