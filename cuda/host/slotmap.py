"""The map from (table, id) to slot: open addressing with linear probing, at most half full.

An entry is two int64 words, 16 bytes, so four of them share a cache line: the id, and table << 32 | slot, which is EMPTY (-1) where
no pair is bound; the id itself may be any int64. Removal shifts the entries behind it back, so there are no tombstones and the
length of a probe depends only on what is bound now. Beside the map stands its inverse: the pair of each slot.

Legend: C entries (a power of two), S slots, U or M pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import prange

from cuda.host.compiled import device, kernel, parallel_kernel
from cuda.host.hashing import mix_pair
from cuda.host.machine import prefetch_read, take
from cuda.plan import Int32s, Int64s

EMPTY = -1
AHEAD = 16
"""Entries are asked for this many pairs before they are looked at."""
CHUNK = 2048
_LOW = 0xFFFFFFFF

Entries = npt.NDArray[np.int64]


def capacity_for(num_slots: int) -> int:
    """Entries for a map that is at most half full."""
    return max(64, 1 << (2 * num_slots - 1).bit_length())


@device
def home_of(entries_c2: Entries, table: int, number: int) -> Any:
    return np.int64(mix_pair(table, number) & np.uint64(entries_c2.shape[0] - 1))


@device
def find(entries_c2: Entries, table: int, number: int) -> Any:
    """The position of a pair's entry, or of the empty one that ends the search."""
    last = entries_c2.shape[0] - 1
    position = home_of(entries_c2, table, number)
    while True:
        word = entries_c2[position, 1]
        if word == EMPTY or (entries_c2[position, 0] == number and (word >> 32) == table):
            return position
        position = (position + 1) & last


@device
def _locate_some(entries_c2: Entries, tables_u: Int32s, ids_u: Int64s, slots_u: Int32s, first: int, last: int) -> None:
    base = entries_c2.ctypes.data
    for u in range(first, min(first + AHEAD, last)):
        prefetch_read(base + 16 * home_of(entries_c2, tables_u[u], ids_u[u]), 16)
    for u in range(first, last):
        if u + AHEAD < last:
            prefetch_read(base + 16 * home_of(entries_c2, tables_u[u + AHEAD], ids_u[u + AHEAD]), 16)
        word = entries_c2[find(entries_c2, tables_u[u], ids_u[u]), 1]
        slots_u[u] = -1 if word == EMPTY else word & _LOW


@kernel
def locate_few(entries_c2: Entries, tables_u: Int32s, ids_u: Int64s, slots_u: Int32s) -> None:
    """``locate`` on the calling thread: for so few pairs that waking other threads would take longer."""
    _locate_some(entries_c2, tables_u, ids_u, slots_u, 0, ids_u.shape[0])


@parallel_kernel
def locate(entries_c2: Entries, tables_u: Int32s, ids_u: Int64s, slots_u: Int32s, threads: int) -> None:
    """Write the slot of each pair, or -1, to ``slots_u``."""
    taken = np.zeros(1, np.int64)
    for _ in prange(threads):
        while True:
            first = take(taken, 0, CHUNK)
            if first >= ids_u.shape[0]:
                break
            _locate_some(entries_c2, tables_u, ids_u, slots_u, first, min(first + CHUNK, ids_u.shape[0]))


@device
def _remove(entries_c2: Entries, table: int, number: int) -> None:
    last = entries_c2.shape[0] - 1
    hole = find(entries_c2, table, number)
    if entries_c2[hole, 1] == EMPTY:
        return
    position = hole
    while True:
        position = (position + 1) & last
        word = entries_c2[position, 1]
        if word == EMPTY:
            break
        # An entry may move into the hole unless its home lies behind the hole (cyclically).
        home = home_of(entries_c2, word >> 32, entries_c2[position, 0])
        if ((position - home) & last) >= ((position - hole) & last):
            entries_c2[hole, 0] = entries_c2[position, 0]
            entries_c2[hole, 1] = word
            hole = position
    entries_c2[hole, 1] = EMPTY


@device
def _unbind(entries_c2: Entries, pair_tables_s: Int32s, pair_ids_s: Int64s, slot: int) -> None:
    if pair_tables_s[slot] >= 0:
        _remove(entries_c2, pair_tables_s[slot], pair_ids_s[slot])
        pair_tables_s[slot] = -1


@kernel
def admit(
    entries_c2: Entries,
    pair_tables_s: Int32s,
    pair_ids_s: Int64s,
    slots_m: Int32s,
    tables_m: Int32s,
    ids_m: Int64s,
) -> bool:
    """Bind slots to pairs that are not resident. False, with the pair left as it was, where one is."""
    base = entries_c2.ctypes.data
    tables, ids = pair_tables_s.ctypes.data, pair_ids_s.ctypes.data
    for m in range(slots_m.shape[0]):
        if m + 2 * AHEAD < slots_m.shape[0]:
            slot = np.int64(slots_m[m + 2 * AHEAD])
            prefetch_read(tables + 4 * slot, 4)
            prefetch_read(ids + 8 * slot, 8)
        if m + AHEAD < slots_m.shape[0]:
            slot = np.int64(slots_m[m + AHEAD])
            prefetch_read(base + 16 * home_of(entries_c2, pair_tables_s[slot], pair_ids_s[slot]), 16)
        _unbind(entries_c2, pair_tables_s, pair_ids_s, slots_m[m])
    for m in range(slots_m.shape[0]):
        if m + AHEAD < slots_m.shape[0]:
            prefetch_read(base + 16 * home_of(entries_c2, tables_m[m + AHEAD], ids_m[m + AHEAD]), 16)
        position = find(entries_c2, tables_m[m], ids_m[m])
        if entries_c2[position, 1] != EMPTY:
            return False
        entries_c2[position, 0] = ids_m[m]
        entries_c2[position, 1] = (np.int64(tables_m[m]) << 32) | np.int64(slots_m[m])
        pair_tables_s[slots_m[m]] = tables_m[m]
        pair_ids_s[slots_m[m]] = ids_m[m]
    return True


@kernel
def forget(entries_c2: Entries, pair_tables_s: Int32s, pair_ids_s: Int64s, slots_m: Int32s) -> None:
    """Unbind slots; unbound ones stay so."""
    for m in range(slots_m.shape[0]):
        _unbind(entries_c2, pair_tables_s, pair_ids_s, slots_m[m])
