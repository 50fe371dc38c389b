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
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from pipeline.rows.arrays import read_only, read_only_ids
from pipeline.rows.errors import BadShape
from pipeline.rows.version import MAX_STEP
from pipeline.rows.xxh64 import hash_bytes, xxh64, xxh64_pair


@njit(nogil=True, cache=True)
def row_key(table_key, row_id, step):  # type: ignore[no-untyped-def]
    """key(row)."""
    return xxh64_pair(np.uint64(row_id), np.uint64(step), table_key)


@njit(nogil=True, cache=True)
def sum_hashes(keys_t, starts_t, ids_n, steps_mask, versions_n, payload_m, row_bytes):  # type: ignore[no-untyped-def]
    """See the module docstring; ``payload_m`` uint8 [n * row_bytes]; table t has rows ``starts_t[t] .. starts_t[t + 1]``."""
    total = np.uint64(0)
    for t in range(keys_t.shape[0]):
        for n in range(starts_t[t], starts_t[t + 1]):
            total += xxh64(
                payload_m, n * row_bytes, row_bytes, row_key(keys_t[t], ids_n[n], versions_n[n] & steps_mask)
            )
    return total


@lru_cache(maxsize=4096)
def table_key(table_name: str) -> np.uint64:
    """key(table)."""
    return np.uint64(hash_bytes(table_name.encode()))


@dataclass(frozen=True, slots=True, eq=False)
class TableRuns:
    """Which rows an array holds: those of several tables, one table behind the other. Raises BadShape."""

    names: Sequence[str]
    starts_t: Any
    """[t + 1]: table t has the rows ``starts_t[t] .. starts_t[t + 1]``, from 0 to n."""
    ids_n: Any
    versions_n: Any
    """Packed."""

    def __post_init__(self) -> None:
        starts, count = self.starts_t, len(self.ids_n)
        if len(self.versions_n) != count or len(starts) != len(self.names) + 1 or starts[0] != 0 or starts[-1] != count:
            raise BadShape(
                f"{len(self.names)} tables that start at {list(starts)}, {count} ids, {len(self.versions_n)} versions"
            )

    def for_kernels(self) -> tuple[Any, Any, Any, Any, Any]:
        """(keys_t, starts_t, ids_n, steps_mask, versions_n)"""
        keys_t = read_only([table_key(name) for name in self.names], np.uint64)
        ids_n, versions_n = read_only_ids(self.ids_n), read_only_ids(self.versions_n)
        return keys_t, read_only_ids(self.starts_t), ids_n, np.int64(MAX_STEP), versions_n


def rows_digest(table_name: str, ids_n: Any, payload_nb: Any, versions_n: Any) -> int:
    """Digest of rows as an int in 0 .. 2**64 - 1. Shapes [n], uint8 [n, any width], int64 [n] packed versions.

    Raises BadShape. Add the digests of several calls mod 2**64 to get that of all their rows.
    """
    return tables_digest(TableRuns((table_name,), (0, len(ids_n)), ids_n, versions_n), payload_nb)


def tables_digest(rows: TableRuns, payload_nb: Any) -> int:
    """The same for rows of several tables."""
    payload_nb = read_only(payload_nb, np.uint8)
    if payload_nb.ndim != 2 or payload_nb.shape[0] != len(rows.ids_n):
        raise BadShape(f"payload {payload_nb.shape}: need [{len(rows.ids_n)}, width]")
    return int(sum_hashes(*rows.for_kernels(), payload_nb.reshape(-1), payload_nb.shape[1]))
