"""The id index, compiled: open addressing over 8-byte entries, which nearly always tell alone whether an id fits.

Rules.

1. An id has one 64-bit hash (``mix``). An entry holds its low 32 bits (the tag) above the 32-bit position of the id.
The tag
   says where the search begins, so that entries move to a larger table without a look at the ids.
2. ``EMPTY`` marks a free entry; no position is that large, so every id, tag and position is an ordinary one.
3. Collisions go to the next entry. Removal moves later entries back: there are no tombstones, and no slow decay.
4. ``ids_p[position]`` is the id itself. At a freed position it is the next freed one, or -1.
5. ``state``: [0] how many ids, [1] positions ever used, [2] first freed position or -1.

Legend: n ids of one call; c entries, a power of two; p positions. ``entries_c`` uint64, ``ids_p`` and ``state`` int64.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.rows.initial import mix

EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
LOW_32 = np.uint64(0xFFFFFFFF)
ONE = np.uint64(1)
HALF = np.uint64(32)
COUNT, USED, FREED = 0, 1, 2


@njit(nogil=True, cache=True)
def tag_of(row_id):  # type: ignore[no-untyped-def]
    return mix(np.uint64(row_id)) & LOW_32


@njit(nogil=True, cache=True)
def _find_entry(entries_c, ids_p, row_id):  # type: ignore[no-untyped-def]
    """The entry of ``row_id``, or the empty one where its search ends."""
    return find_tagged(entries_c, ids_p, tag_of(row_id), row_id)


@njit(nogil=True, cache=True)
def find_tagged(entries_c, ids_p, tag, row_id):  # type: ignore[no-untyped-def]
    """The same for an id whose tag is known."""
    mask = np.uint64(entries_c.shape[0] - 1)
    at = tag & mask
    while True:
        entry = entries_c[at]
        if entry == EMPTY or (entry >> HALF == tag and ids_p[entry & LOW_32] == row_id):
            return at
        at = (at + ONE) & mask


@njit(nogil=True, cache=True)
def find_position(entries_c, ids_p, row_id):  # type: ignore[no-untyped-def]
    """The position of one id, or -1."""
    entry = entries_c[_find_entry(entries_c, ids_p, row_id)]
    return np.int64(-1) if entry == EMPTY else np.int64(entry & LOW_32)


@njit(nogil=True, cache=True)
def find_positions(entries_c, ids_p, ids_n, positions_n):  # type: ignore[no-untyped-def]
    """Write the position of each id, or -1, to ``positions_n`` int64."""
    for n in range(ids_n.shape[0]):
        positions_n[n] = find_position(entries_c, ids_p, ids_n[n])


@njit(nogil=True, cache=True)
def _take_position(ids_p, state):  # type: ignore[no-untyped-def]
    position = state[FREED]
    if position >= 0:
        state[FREED] = ids_p[position]
    else:
        position = state[USED]
        state[USED] += 1
    state[COUNT] += 1
    return position


@njit(nogil=True, cache=True)
def insert_ids(entries_c, ids_p, state, ids_n, start, max_count, positions_n):  # type: ignore[no-untyped-def]
    """Find or insert from ``ids_n[start]`` on; returns where it stopped: at the end, or where there is no room."""
    for n in range(start, ids_n.shape[0]):
        row_id = ids_n[n]
        at = _find_entry(entries_c, ids_p, row_id)
        if entries_c[at] == EMPTY:
            if state[COUNT] >= max_count:
                return n
            position = _take_position(ids_p, state)
            ids_p[position] = row_id
            entries_c[at] = (mix(np.uint64(row_id)) << HALF) | np.uint64(position)
        positions_n[n] = np.int64(entries_c[at] & LOW_32)
    return ids_n.shape[0]


@njit(nogil=True, cache=True)
def close_gap(entries_c, gap):  # type: ignore[no-untyped-def]
    """Move entries behind ``gap`` back into it wherever their search passes it, until one is empty."""
    mask = np.uint64(entries_c.shape[0] - 1)
    at = gap
    while True:
        at = (at + ONE) & mask
        entry = entries_c[at]
        if entry == EMPTY:
            break
        home = (entry >> HALF) & mask
        if (at - home) & mask >= (at - gap) & mask:
            entries_c[gap] = entry
            gap = at
    entries_c[gap] = EMPTY


@njit(nogil=True, cache=True)
def remove_ids(entries_c, ids_p, state, ids_n, positions_n):  # type: ignore[no-untyped-def]
    """Remove ids; write the position each had, or -1."""
    for n in range(ids_n.shape[0]):
        at = _find_entry(entries_c, ids_p, ids_n[n])
        entry = entries_c[at]
        if entry == EMPTY:
            positions_n[n] = -1
            continue
        position = np.int64(entry & LOW_32)
        close_gap(entries_c, at)
        ids_p[position] = state[FREED]
        state[FREED] = position
        state[COUNT] -= 1
        positions_n[n] = position


@njit(nogil=True, cache=True)
def move_entries(old_c, new_c):  # type: ignore[no-untyped-def]
    """Enter everything in ``old_c`` into ``new_c``, which is empty and larger."""
    mask = np.uint64(new_c.shape[0] - 1)
    for c in range(old_c.shape[0]):
        entry = old_c[c]
        if entry != EMPTY:
            at = (entry >> HALF) & mask
            while new_c[at] != EMPTY:
                at = (at + ONE) & mask
            new_c[at] = entry


@njit(nogil=True, cache=True)
def mark_positions(entries_c, held_p):  # type: ignore[no-untyped-def]
    """Set ``held_p`` (bool) at every position that an id holds."""
    for c in range(entries_c.shape[0]):
        if entries_c[c] != EMPTY:
            held_p[entries_c[c] & LOW_32] = True
