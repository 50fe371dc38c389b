"""Which shard of a stream a row goes to: the same on every machine, in every process, for as long as the row lives.

    shard(table, id, n) = XXH64(id: one int64, little endian: 8 bytes, seed = key(table)) mod n
    key(table)          = XXH64(table name in UTF-8, seed = 0)

The hash is that of the digest (``digest``), so a reader needs nothing further. Example: table "users", id -1:
XXH64 = 0x7247854FB372B662, of 4 shards the one of number 2.

Legend: n ids of one call; k shards.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from pipeline.rows.arrays import read_only_ids
from pipeline.rows.digest import table_key
from pipeline.rows.xxh64 import xxh64_word

Int64s = npt.NDArray[np.int64]


@njit(nogil=True, cache=True)
def _shard(key, row_id, num_shards):  # type: ignore[no-untyped-def]
    return np.int64(xxh64_word(np.uint64(row_id), key) % num_shards)


@njit(nogil=True, cache=True)
def _count_elsewhere(key, ids_n, num_shards, shard):  # type: ignore[no-untyped-def]
    count = 0
    for n in range(ids_n.shape[0]):
        count += _shard(key, ids_n[n], num_shards) != shard
    return count


@njit(nogil=True, cache=True)
def _split(key, ids_n, num_shards, starts_k, out_n):  # type: ignore[no-untyped-def]
    """Count, then place: ``starts_k`` [k + 1] are zeros before, and where each shard's ids begin in ``out_n`` after."""
    shards_n = np.empty(ids_n.shape[0], dtype=np.uint16)
    for n in range(ids_n.shape[0]):
        shard = _shard(key, ids_n[n], num_shards)
        shards_n[n] = shard
        starts_k[shard + 1] += 1
    for k in range(starts_k.shape[0] - 1):
        starts_k[k + 1] += starts_k[k]
    free_k = starts_k[:-1].copy()
    for n in range(ids_n.shape[0]):
        shard = shards_n[n]
        out_n[free_k[shard]] = ids_n[n]
        free_k[shard] += 1


def split_by_shard(table: str, ids_n: Any, num_shards: int) -> list[Int64s]:
    """The ids of each shard, in the order in which they stand in ``ids_n`` (int64 [n]): views of one new array.

    ``num_shards`` from 1 to 65,536. Raises TypeError and ValueError as ``read_only_ids`` does.
    """
    ids_n = read_only_ids(ids_n)
    starts_k = np.zeros(num_shards + 1, dtype=np.int64)
    out_n = np.empty(len(ids_n), dtype=np.int64)
    _split(table_key(table), ids_n, np.uint64(num_shards), starts_k, out_n)
    return [out_n[start:stop] for start, stop in pairwise(starts_k.tolist())]


def count_elsewhere(table: str, ids_n: Any, num_shards: int, shard: int) -> int:
    """How many of these ids (int64 [n]) do not belong to ``shard``."""
    return int(_count_elsewhere(table_key(table), read_only_ids(ids_n), np.uint64(num_shards), shard))
