"""A counter-based generator: a number is a pure function of a key and a counter. 64-bit integers only, so every
machine agrees.

The mixer is the finalizer of splitmix64 (Steele, Lea and Flood, 2014). Not for secrets.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

UInt64s = npt.NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FACTOR_1 = np.uint64(0xBF58476D1CE4E5B9)
FACTOR_2 = np.uint64(0x94D049BB133111EB)
S27, S30, S31, S11 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(11)
UNIT = 2.0**-53


@njit(nogil=True, cache=True)
def mix(key: np.uint64, counter: np.uint64) -> np.uint64:
    """uint64 of (key, counter)."""
    x = key + (counter + np.uint64(1)) * GOLDEN
    x = (x ^ (x >> S30)) * FACTOR_1
    x = (x ^ (x >> S27)) * FACTOR_2
    return x ^ (x >> S31)


@njit(nogil=True, cache=True)
def unit(word: np.uint64) -> float:
    """A float64 in [0, 1) from the upper 53 bits."""
    return np.float64(word >> S11) * UNIT


@njit(nogil=True, cache=True)
def signed(word: np.uint64) -> int:
    """The same number, below 2**63, as int64: Numba makes a float64 of int64 + uint64."""
    return np.int64(word)  # type: ignore[return-value]


@njit(nogil=True, cache=True)
def mix_range(key: np.uint64, count: int) -> UInt64s:
    """``mix(key, i)`` for i in 0..count-1."""
    words_n = np.empty(count, np.uint64)
    for i in range(count):
        words_n[i] = mix(key, np.uint64(i))
    return words_n


def key_of(seed: int, *parts: int) -> np.uint64:
    """One key from a seed and any number of integers."""
    key = seed & 0xFFFFFFFFFFFFFFFF
    for part in (len(parts), *parts):
        key = int(_mix_int(key, part & 0xFFFFFFFFFFFFFFFF))
    return np.uint64(key)


def _mix_int(key: int, counter: int) -> int:
    mask = 0xFFFFFFFFFFFFFFFF
    x = (key + (counter + 1) * int(GOLDEN)) & mask
    x = ((x ^ (x >> 30)) * int(FACTOR_1)) & mask
    x = ((x ^ (x >> 27)) * int(FACTOR_2)) & mask
    return x ^ (x >> 31)


def permutation(key: np.uint64, count: int) -> npt.NDArray[np.int64]:
    """A permutation of 0..count-1: the order of ``mix(key, i)``."""
    return np.argsort(mix_range(key, count), kind="stable").astype(np.int64, copy=False)
