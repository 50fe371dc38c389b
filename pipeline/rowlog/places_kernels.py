"""The place index, compiled: one call for many ids, over shards that each hold a range of keys (``shard_kernels``).

Legend: n ids of one call; k shards, in the order of their keys. A cell covers the keys whose top ``bits`` bits are its
number, the sign bit turned over, so that cells have the order of keys; it knows the shard of its first key. ``shards``
and ``cells`` are addresses: of records, int64 [k, FIELDS], and of int64 [2**bits + 1]. An id's key and shard are kept in
a ring from the moment its entry is asked for.
"""

from __future__ import annotations

import numpy as np

from pipeline.rowlog.shard_kernels import (
    COUNT,
    END,
    LIMIT,
    LOW,
    SHARD_BYTES,
    enter,
    get,
    holds,
    home,
    inline,
    kernel,
    key_of,
    leave,
    seek,
    widen,
)
from pipeline.rows.native import ask_for, read_word, write_word

AHEAD = 32
"""Ids whose entries are asked for ahead of their use: they lie anywhere in memory."""
RING = 64
"""A power of two, above AHEAD."""
DIGIT_BITS = 7
SIGN = np.uint64(1 << 63)


@inline
def find_shard(shards, cells, bits, key):  # type: ignore[no-untyped-def]
    """The shard that holds or would hold ``key``."""
    cell = cells + 8 * np.int64((np.uint64(key) ^ SIGN) >> np.uint64(64 - bits))
    k, last = read_word(cell), read_word(cell + 8)
    while k < last:
        middle = (k + last + 1) >> 1
        if get(shards + middle * SHARD_BYTES, LOW) <= key:
            k = middle
        else:
            last = middle - 1
    return shards + k * SHARD_BYTES


@inline
def _look_ahead(shards, cells, bits, ids_n, n, ring_r2):  # type: ignore[no-untyped-def]
    """Keep key and shard of one id, and ask for its entry."""
    if n < ids_n.shape[0]:
        key = key_of(ids_n[n])
        shard = find_shard(shards, cells, bits, key)
        at = home(shard, key)
        ask_for(at)
        ask_for(at + 64)
        ring_r2[n & (RING - 1), 0], ring_r2[n & (RING - 1), 1] = key, shard


@kernel
def number_of(shards, cells, bits, key):  # type: ignore[no-untyped-def]
    """The number of the shard that holds or would hold ``key``."""
    return (find_shard(shards, cells, bits, key) - shards) // SHARD_BYTES


@kernel
def find_places(shards, cells, bits, ids_n, places_n):  # type: ignore[no-untyped-def]
    """Write the place of each id, or -1."""
    ring_r2 = np.empty((RING, 2), dtype=np.int64)
    for n in range(-AHEAD, ids_n.shape[0]):
        _look_ahead(shards, cells, bits, ids_n, n + AHEAD, ring_r2)
        if n >= 0:
            key = ring_r2[n & (RING - 1), 0]
            at = seek(ring_r2[n & (RING - 1), 1], key)
            places_n[n] = ~read_word(at + 8) if holds(at, key) else -1


@kernel
def move_places(shards, cells, bits, ids_n, places_n, from_n, moved_n):  # type: ignore[no-untyped-def]
    """Replace the place of each id that is at ``from_n`` now, and tell which."""
    ring_r2 = np.empty((RING, 2), dtype=np.int64)
    for n in range(-AHEAD, ids_n.shape[0]):
        _look_ahead(shards, cells, bits, ids_n, n + AHEAD, ring_r2)
        if n >= 0:
            key = ring_r2[n & (RING - 1), 0]
            at = seek(ring_r2[n & (RING - 1), 1], key)
            moved_n[n] = holds(at, key) and ~read_word(at + 8) == from_n[n]
            if moved_n[n]:
                write_word(at + 8, ~places_n[n])


@inline
def _place_in(shard, key, at, entries, scratch):  # type: ignore[no-untyped-def]
    """Where a new key goes, which is not at ``at``; -1 where the shard must be split first."""
    if get(shard, END) >= entries - 1:
        return -1
    if get(shard, COUNT) >= get(shard, LIMIT):
        if not widen(shard, get(shard, COUNT), entries, scratch):
            return -1
        return seek(shard, key)
    return at


@kernel
def put_places(shards, cells, bits, ids_n, places_n, start, old_n, entries, scratch):  # type: ignore[no-untyped-def]
    """Enter or replace from ``ids_n[start]`` on; returns where it stopped: at the end, or where a shard must be split."""
    ring_r2 = np.empty((RING, 2), dtype=np.int64)
    for n in range(start - AHEAD, ids_n.shape[0]):
        _look_ahead(shards, cells, bits, ids_n, n + AHEAD, ring_r2)
        if n >= start:
            key, shard = ring_r2[n & (RING - 1), 0], ring_r2[n & (RING - 1), 1]
            at = seek(shard, key)
            if holds(at, key):
                old_n[n] = ~read_word(at + 8)
                write_word(at + 8, ~places_n[n])
                continue
            at = _place_in(shard, key, at, entries, scratch)
            if at < 0:
                return n
            enter(shard, at, key, ~places_n[n])
            old_n[n] = -1
    return ids_n.shape[0]


@inline
def _is_newer(version, other):  # type: ignore[no-untyped-def]
    """Of two records of one id. The sign bit says that a version forgets the id; such a one wins a tie."""
    mine, its = np.uint64(version) & ~SIGN, np.uint64(other) & ~SIGN
    return mine > its or (mine == its and version < 0)


@kernel
def recover_places(  # type: ignore[no-untyped-def]
    shards, cells, bits, ids_n, places_n, start, first, last, versions_r, bases_s, older_n, entries, scratch
):
    """As ``put_places``, of ids with keys in ``first`` .. ``last``; but of two places of an id the one with the newer version stays.

    ``older_n``: the other one, or -1. The version of place p is ``versions_r[bases_s[p >> 32] + (p & 0xFFFFFFFF)]``. Several threads
    may run it at once on parts of the keys that share no shard.
    """
    low = (1 << 32) - 1
    ring_r2 = np.empty((RING, 2), dtype=np.int64)
    for n in range(start - AHEAD, ids_n.shape[0]):
        if n + AHEAD < ids_n.shape[0] and first <= key_of(ids_n[n + AHEAD]) <= last:
            _look_ahead(shards, cells, bits, ids_n, n + AHEAD, ring_r2)
        if n >= start and first <= key_of(ids_n[n]) <= last:
            key, shard = ring_r2[n & (RING - 1), 0], ring_r2[n & (RING - 1), 1]
            place, at = places_n[n], seek(shard, key)
            if holds(at, key):
                held = ~read_word(at + 8)
                version = versions_r[bases_s[place >> 32] + (place & low)]
                older_n[n] = place
                if _is_newer(version, versions_r[bases_s[held >> 32] + (held & low)]):
                    older_n[n] = held
                    write_word(at + 8, ~place)
                continue
            at = _place_in(shard, key, at, entries, scratch)
            if at < 0:
                return n
            enter(shard, at, key, ~place)
            older_n[n] = -1
    return ids_n.shape[0]


@kernel
def remove_places(shards, cells, bits, ids_n, old_n):  # type: ignore[no-untyped-def]
    """Remove ids; write the place each had, or -1."""
    ring_r2 = np.empty((RING, 2), dtype=np.int64)
    for n in range(-AHEAD, ids_n.shape[0]):
        _look_ahead(shards, cells, bits, ids_n, n + AHEAD, ring_r2)
        if n >= 0:
            key, shard = ring_r2[n & (RING - 1), 0], ring_r2[n & (RING - 1), 1]
            at = seek(shard, key)
            old_n[n] = ~read_word(at + 8) if holds(at, key) else -1
            if old_n[n] >= 0:
                leave(shard, at)


@inline
def _group_of(row_id):  # type: ignore[no-untyped-def]
    return np.int64((np.uint64(key_of(row_id)) ^ SIGN) >> np.uint64(64 - 2 * DIGIT_BITS))


@kernel
def group(ids_n, places_n):  # type: ignore[no-untyped-def]
    """Bring ids into the order of the top bits of their keys: ids, places and where each was, int64 and int32 [n].

    Two passes, each over few enough targets for the processor to keep them at hand.
    """
    count, digits = ids_n.shape[0], 1 << DIGIT_BITS
    first_ids_n, first_places_n, first_n = _three(count)
    grouped_ids_n, grouped_places_n, order_n = _three(count)
    low_d, high_d = np.zeros(digits + 1, dtype=np.int64), np.zeros(digits + 1, dtype=np.int64)
    for n in range(count):
        number = _group_of(ids_n[n])
        low_d[(number & (digits - 1)) + 1] += 1
        high_d[(number >> DIGIT_BITS) + 1] += 1
    low_d, high_d = np.cumsum(low_d), np.cumsum(high_d)
    for n in range(count):
        digit = _group_of(ids_n[n]) & (digits - 1)
        to = low_d[digit]
        low_d[digit] += 1
        first_ids_n[to], first_places_n[to], first_n[to] = ids_n[n], places_n[n], n
    for n in range(count):
        digit = _group_of(first_ids_n[n]) >> DIGIT_BITS
        to = high_d[digit]
        high_d[digit] += 1
        grouped_ids_n[to], grouped_places_n[to], order_n[to] = first_ids_n[n], first_places_n[n], first_n[n]
    return grouped_ids_n, grouped_places_n, order_n


@inline
def _three(count):  # type: ignore[no-untyped-def]
    return np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int32)
