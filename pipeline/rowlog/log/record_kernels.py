"""Records in memory, compiled: see ``records``. They hold no lock and release the GIL.

Offsets are uint64: with a signed one every byte asks whether it counts from the end, and copies go byte by byte.
"""

from __future__ import annotations

import numpy as np
from numba import carray, njit  # type: ignore[attr-defined]

from pipeline.rows.native import ask_for, pointer
from pipeline.rows.xxh64 import xxh64, xxh64_pair

WORD = np.uint64(8)
NONE = np.uint64(0)
CACHE_LINE = 64
AHEAD, AHEAD_BYTES = 4, 1024
"""So many records ahead, and so much of each, is brought near from memory."""


@njit(nogil=True, cache=True)
def _put_word(out, at, word):  # type: ignore[no-untyped-def]
    for k in range(8):
        out[at + np.uint64(k)] = np.uint8((np.uint64(word) >> np.uint64(8 * k)) & np.uint64(0xFF))


@njit(nogil=True, cache=True)
def _get_word(data, at):  # type: ignore[no-untyped-def]
    word = NONE
    for k in range(8):
        word |= np.uint64(data[at + np.uint64(k)]) << np.uint64(8 * k)
    return np.int64(word)


@njit(nogil=True, cache=True)
def _seal(key, place, data, start, length):  # type: ignore[no-untyped-def]
    """The checksum of the record at ``data[start : start + length]``, which is at ``place``."""
    return xxh64(data, start, length - WORD, xxh64_pair(np.uint64(place), NONE, key))


@njit(nogil=True, cache=True)
def pack(key, place, ids_n, rows_nb, row_bytes, versions_n, out, start, per_block, block, stride):  # type: ignore[no-untyped-def]
    """Write records to ``out``; the first is number ``start`` of the block that ``out`` begins with."""
    length = np.uint64(stride)
    row_end, words_end = np.uint64(row_bytes), length - np.uint64(3) * WORD
    for n in range(ids_n.shape[0]):
        at = np.uint64((start + n) // per_block * block + (start + n) % per_block * stride)
        row_b = rows_nb[n]
        for b in range(row_end):
            out[at + b] = row_b[b]
        for b in range(row_end, words_end):
            out[at + b] = 0
        _put_word(out, at + words_end, ids_n[n])
        _put_word(out, at + words_end + WORD, versions_n[n])
        _put_word(out, at + words_end + WORD + WORD, _seal(key, place + n, out, at, length))


@njit(nogil=True, cache=True)
def _take(key, data, offset, place, row_id, stride, row_bytes, row_b):  # type: ignore[no-untyped-def]
    """Check a record and copy its row; returns (whether it is what was asked for, its version)."""
    at, length = np.uint64(offset), np.uint64(stride)
    words_end = length - np.uint64(3) * WORD
    sound = _get_word(data, at + length - WORD) == np.int64(_seal(key, place, data, at, length))
    if not sound or _get_word(data, at + words_end) != row_id:
        return False, np.int64(0)
    for b in range(np.uint64(row_bytes)):
        row_b[b] = data[at + b]
    return True, _get_word(data, at + words_end + WORD)


@njit(nogil=True, cache=True)
def unpack(key, data, offsets_n, places_n, ids_n, into_n, stride, row_bytes, rows_nb, versions_n):  # type: ignore[no-untyped-def]
    """See ``Records.unpack``."""
    for n in range(offsets_n.shape[0]):
        into = into_n[n]
        sound, version = _take(key, data, offsets_n[n], places_n[n], ids_n[n], stride, row_bytes, rows_nb[into])
        if not sound:
            return n
        versions_n[into] = version
    return -1


@njit(nogil=True, cache=True)
def find_in_memory(firsts_x, counts_x, places_n, found_n):  # type: ignore[no-untyped-def]
    """Write the number of the extent that holds each place, or -1. Extents [x] by their first place, rising."""
    for n in range(places_n.shape[0]):
        x = np.searchsorted(firsts_x, places_n[n], side="right") - 1
        found_n[n] = x if x >= 0 and places_n[n] - firsts_x[x] < counts_x[x] else -1


@njit(nogil=True, cache=True)
def _address(firsts_x, bases_x, x, place, per_block, block, stride):  # type: ignore[no-untyped-def]
    row = place - firsts_x[x]
    return bases_x[x] + row // per_block * block + row % per_block * stride


@njit(nogil=True, cache=True)
def unpack_memory(key, firsts_x, bases_x, found_n, places_n, ids_n, per_block, block, stride, row_bytes, rows_nb, versions_n):  # type: ignore[no-untyped-def]  # fmt: skip
    """``unpack`` for those that are in memory: extents begin at ``bases_x``."""
    count = places_n.shape[0]
    for n in range(count):
        ahead = min(n + AHEAD, count - 1)
        if found_n[ahead] >= 0:
            start = _address(firsts_x, bases_x, found_n[ahead], places_n[ahead], per_block, block, stride)
            for line in range(0, min(stride, AHEAD_BYTES), CACHE_LINE):
                ask_for(start + line)
        x = found_n[n]
        if x < 0:
            continue
        at = _address(firsts_x, bases_x, x, places_n[n], per_block, block, stride)
        data = carray(pointer(at), (stride,), np.uint8)
        sound, version = _take(key, data, 0, places_n[n], ids_n[n], stride, row_bytes, rows_nb[n])
        if not sound:
            return n
        versions_n[n] = version
    return -1
