"""XXH64, compiled: the named hash of text ids, table names and digests.

https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md. All arithmetic is on uint64, mod 2**64; bytes are read
little endian. Eight byte loads that are or-ed together become one load of a word when compiled.
"""

from __future__ import annotations

import numpy as np
from numba import njit

PRIME_1 = np.uint64(0x9E3779B185EBCA87)
PRIME_2 = np.uint64(0xC2B2AE3D27D4EB4F)
PRIME_3 = np.uint64(0x165667B19E3779F9)
PRIME_4 = np.uint64(0x85EBCA77C2B2AE63)
PRIME_5 = np.uint64(0x27D4EB2F165667C5)
ZERO, ONE, FOUR, EIGHT, STRIPE = np.uint64(0), np.uint64(1), np.uint64(4), np.uint64(8), np.uint64(32)


@njit(nogil=True, cache=True, inline="always")
def _rotate(word, bits):  # type: ignore[no-untyped-def]
    return (word << np.uint64(bits)) | (word >> np.uint64(64 - bits))


@njit(nogil=True, cache=True)
def _load_8(data, at):  # type: ignore[no-untyped-def]
    word = ZERO
    for k in range(8):
        word |= np.uint64(data[at + np.uint64(k)]) << np.uint64(8 * k)
    return word


@njit(nogil=True, cache=True)
def _load_4(data, at):  # type: ignore[no-untyped-def]
    word = ZERO
    for k in range(4):
        word |= np.uint64(data[at + np.uint64(k)]) << np.uint64(8 * k)
    return word


@njit(nogil=True, cache=True)
def _round(lane, word):  # type: ignore[no-untyped-def]
    return _rotate(lane + word * PRIME_2, 31) * PRIME_1


@njit(nogil=True, cache=True)
def _merge(state, lane):  # type: ignore[no-untyped-def]
    return (state ^ _round(ZERO, lane)) * PRIME_1 + PRIME_4


@njit(nogil=True, cache=True)
def _avalanche(state):  # type: ignore[no-untyped-def]
    state ^= state >> np.uint64(33)
    state *= PRIME_2
    state ^= state >> np.uint64(29)
    state *= PRIME_3
    return state ^ (state >> np.uint64(32))


@njit(nogil=True, cache=True)
def _tail(data, at, end, state):  # type: ignore[no-untyped-def]
    while at + EIGHT <= end:
        state = _rotate(state ^ _round(ZERO, _load_8(data, at)), 27) * PRIME_1 + PRIME_4
        at += EIGHT
    if at + FOUR <= end:
        state = _rotate(state ^ (_load_4(data, at) * PRIME_1), 23) * PRIME_2 + PRIME_3
        at += FOUR
    while at < end:
        state = _rotate(state ^ (np.uint64(data[at]) * PRIME_5), 11) * PRIME_1
        at += ONE
    return _avalanche(state)


@njit(nogil=True, cache=True)
def xxh64(data, start, length, seed):  # type: ignore[no-untyped-def]
    """XXH64 of ``data[start : start + length]``, ``data`` uint8 [any], with a uint64 seed. Returns uint64."""
    at = np.uint64(start)
    end = at + np.uint64(length)
    state = seed + PRIME_5
    if length >= 32:
        a, b, c, d = seed + PRIME_1 + PRIME_2, seed + PRIME_2, seed, seed - PRIME_1
        while at + STRIPE <= end:
            a = _round(a, _load_8(data, at))
            b = _round(b, _load_8(data, at + EIGHT))
            c = _round(c, _load_8(data, at + np.uint64(16)))
            d = _round(d, _load_8(data, at + np.uint64(24)))
            at += STRIPE
        state = _rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)
        state = _merge(_merge(_merge(_merge(state, a), b), c), d)
    return _tail(data, at, end, state + np.uint64(length))


@njit(nogil=True, cache=True)
def xxh64_pair(first, second, seed):  # type: ignore[no-untyped-def]
    """XXH64 of the 16 bytes of two uint64 words, little endian."""
    state = seed + PRIME_5 + np.uint64(16)
    state = _rotate(state ^ _round(ZERO, first), 27) * PRIME_1 + PRIME_4
    state = _rotate(state ^ _round(ZERO, second), 27) * PRIME_1 + PRIME_4
    return _avalanche(state)


@njit(nogil=True, cache=True)
def xxh64_word(word, seed):  # type: ignore[no-untyped-def]
    """XXH64 of the 8 bytes of a uint64 word, little endian."""
    state = seed + PRIME_5 + EIGHT
    return _avalanche(_rotate(state ^ _round(ZERO, word), 27) * PRIME_1 + PRIME_4)


def hash_bytes(data: bytes, seed: int = 0) -> int:
    """XXH64 of a byte string, as an int in 0 .. 2**64 - 1."""
    array = np.frombuffer(data, dtype=np.uint8)
    return int(xxh64(array, 0, array.shape[0], np.uint64(seed & 0xFFFFFFFFFFFFFFFF)))
