"""The digest of a set of rows: what two holders of the same rows both compute, in whatever order they hold them.

    digest        = sum over rows of hash(row), mod 2**64; no rows: 0
    hash(row)     = XXH64(payload bytes, seed = key(row))
    key(row)      = XXH64(id, then step: two int64, little endian: 16 bytes, seed = key(table))
    key(table)    = XXH64(table name in UTF-8, seed = 0)

The payload is whatever bytes the caller chose (packed rows, or decoded weights). The step is that of the row's version:
the generation is no part of a row's identity. A sum, not an exclusive or, so that the same row twice does not vanish.

Example, as any XXH64 has it: table "users", id -1, step 7, payload of the four bytes 01 02 03 04:
key(table) = 0x96579C3E7CFBD7C7, key(row) = 0x542D4CE600B4E432, digest = 0x2B5649420E45E552.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from pipeline.rows.arrays import read_only, read_only_ids
from pipeline.rows.errors import BadShape
from pipeline.rows.version import MAX_STEP
from pipeline.rows.xxh64 import hash_bytes, xxh64, xxh64_pair


@njit(nogil=True, cache=True)
def sum_hashes(keys_t, starts_t, ids_n, steps_mask, versions_n, payload_m, row_bytes):  # type: ignore[no-untyped-def]
    """See the module docstring; ``payload_m`` uint8 [n * row_bytes]; table t has rows ``starts_t[t] .. starts_t[t + 1]``."""
    total = np.uint64(0)
    for t in range(keys_t.shape[0]):
        for n in range(starts_t[t], starts_t[t + 1]):
            key = xxh64_pair(np.uint64(ids_n[n]), np.uint64(versions_n[n] & steps_mask), keys_t[t])
            total += xxh64(payload_m, n * row_bytes, row_bytes, key)
    return total


@lru_cache(maxsize=4096)
def table_key(table_name: str) -> np.uint64:
    """key(table)."""
    return np.uint64(hash_bytes(table_name.encode()))


def rows_digest(table_name: str, ids_n: Any, payload_nb: Any, versions_n: Any) -> int:
    """Digest of rows as an int in 0 .. 2**64 - 1. Shapes [n], uint8 [n, any width], int64 [n] packed versions.

    Raises BadShape. Add the digests of several calls mod 2**64 to get that of all their rows.
    """
    return tables_digest((table_name,), (0, len(ids_n)), ids_n, payload_nb, versions_n)


def tables_digest(table_names: Sequence[str], starts_t: Any, ids_n: Any, payload_nb: Any, versions_n: Any) -> int:
    """The same for several tables' rows, one table behind the other: table t has ``starts_t[t] .. starts_t[t + 1]``."""
    ids_n, versions_n = read_only_ids(ids_n), read_only_ids(versions_n)
    payload_nb, starts_t = read_only(payload_nb, np.uint8), read_only_ids(starts_t)
    if payload_nb.ndim != 2 or not ids_n.shape[0] == versions_n.shape[0] == payload_nb.shape[0]:
        raise BadShape(
            f"ids {ids_n.shape}, versions {versions_n.shape}, payload {payload_nb.shape}: need [n], [n], [n, width]"
        )
    if starts_t.shape[0] != len(table_names) + 1 or starts_t[0] != 0 or starts_t[-1] != ids_n.shape[0]:
        raise BadShape(f"{len(table_names)} tables that start at {starts_t.tolist()}, {ids_n.shape[0]} rows")
    keys_t = read_only([table_key(name) for name in table_names], np.uint64)
    return int(
        sum_hashes(
            keys_t,
            starts_t,
            ids_n,
            np.int64(MAX_STEP),
            versions_n,
            payload_nb.reshape(-1),
            payload_nb.shape[1],
        )
    )
