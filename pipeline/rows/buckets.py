"""Many ids in few buckets: the hash that a source's ``buckets`` names, for every program that has to find the same row.

    bucket(id, N) = mix(id) mod N, all in unsigned 64-bit arithmetic that wraps around

    mix(x):  x = x + 0x9E3779B97F4A7C15
             x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
             x = (x ^ (x >> 27)) * 0x94D049BB133111EB
             x ^ (x >> 31)

``mix`` is splitmix64 (Steele, Lea and Flood, 2014) and has no seed. A negative id is the unsigned number of the same bits. For example
bucket(0, 1000) = 535, bucket(1, 1000) = 465, bucket(-1, 1000) = 936.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from pipeline.rows.arrays import read_only_ids

Int64s = npt.NDArray[np.int64]
GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
FACTOR_1: Final = np.uint64(0xBF58476D1CE4E5B9)
FACTOR_2: Final = np.uint64(0x94D049BB133111EB)
S27, S30, S31 = np.uint64(27), np.uint64(30), np.uint64(31)


def bucket_ids(ids: Any, buckets: int) -> Int64s:
    """int64 [n] -> int64 [n], each in 0 .. buckets - 1. ``buckets`` is at least 1."""
    if buckets < 1:
        raise ValueError(f"{buckets} buckets; there is at least one")
    ids_n = read_only_ids(ids)
    found_n = np.empty(ids_n.shape[0], dtype=np.int64)
    _bucket_all(ids_n, np.uint64(buckets), found_n)
    return found_n


@njit(nogil=True, cache=True)
def _bucket_all(ids_n: Int64s, buckets: np.uint64, found_n: Int64s) -> None:
    for n in range(ids_n.shape[0]):
        x = np.uint64(ids_n[n]) + GOLDEN
        x = (x ^ (x >> S30)) * FACTOR_1
        x = (x ^ (x >> S27)) * FACTOR_2
        found_n[n] = np.int64((x ^ (x >> S31)) % buckets)
