"""One shard of the place index, compiled: entries in the order of their keys, which grow where they are.

Rules.

1. A key is the id after ``mix``, a bijection, read as int64: keys are spread evenly, and the id comes back by ``id_of``.
2. An entry is two words: a key and the complement of its place, which is never 0. So an entry is free while its second
   word is 0: zeroed memory, which takes nothing until it is written, is free entries. Every id is an ordinary one.
3. A shard holds the keys from LOW to HIGH. A key's home is where it would lie if its shard's keys were spread evenly; it
   lies there or behind, with no free entry between. All entries lie in the order of their keys. So a search ends at the
   first entry that is free or not below the key, and for an absent id it costs what it costs for a present one.
4. Only the first END entries were ever written. END is below ``entries``, those that the shard has memory for, so every
   search ends inside.
5. Growing scales homes up: every entry moves to the right or stays, and no second memory is needed. A shard that is
   full, or whose entries have come to the end of its memory, is split by the caller, who has the memory.
6. Crafted ids can share a home. So after LINEAR steps a search goes on by doubling and halving, and a shard is split at
   one of its keys, not at a bit: no set of ids makes searches, shards or memory run away.

Legend: ``shard`` is the address of a shard's record, int64 [FIELDS], LOW to END; ``at`` that of an entry.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.rows.initial import mix
from pipeline.rows.native import read_word, write_word

LOW, HIGH, ADDRESS, SHIFT, SCALE, COUNT, LIMIT, END = range(8)
FIELDS = 8
SHARD_BYTES = 64
ENTRY_BYTES = 16
GROWN_LOAD, FULL_LOAD = 0.73, 0.85
"""How full a shard is after it grew, and when it grows at the latest."""
EARLIER = 0.05
"""How much sooner it may grow, by chance: shards that fill evenly would all grow in the same few puts."""
SPLIT_LOAD, KEPT = 0.7, 1.15
"""A shard of more ids than this share of its memory is split, not grown; how much more than it needs it then keeps."""
SMALLEST, LINEAR = 16, 64
"""The ids that a shard has room for at least; the steps that a search takes at most, unless ids were crafted."""

UNMIX_1 = np.uint64(pow(0xBF58476D1CE4E5B9, -1, 2**64))
UNMIX_2 = np.uint64(pow(0x94D049BB133111EB, -1, 2**64))

kernel = njit(nogil=True, cache=True)
inline = njit(nogil=True, cache=True, forceinline=True)


@inline
def key_of(row_id):  # type: ignore[no-untyped-def]
    """int64 id -> int64 key."""
    return np.int64(mix(np.uint64(row_id)))


@inline
def id_of(key):  # type: ignore[no-untyped-def]
    """int64 key -> int64 id: undoes ``mix`` step by step."""
    word = np.uint64(key)
    word ^= (word >> np.uint64(31)) ^ (word >> np.uint64(62))
    word *= UNMIX_2
    word ^= (word >> np.uint64(27)) ^ (word >> np.uint64(54))
    word *= UNMIX_1
    return np.int64(word ^ (word >> np.uint64(30)) ^ (word >> np.uint64(60)))


@inline
def get(shard, field):  # type: ignore[no-untyped-def]
    """One field of a shard's record."""
    return read_word(shard + 8 * field)


@inline
def put(shard, field, value):  # type: ignore[no-untyped-def]
    """Set it."""
    write_word(shard + 8 * field, np.int64(value))


@inline
def is_free(at):  # type: ignore[no-untyped-def]
    return read_word(at + 8) == 0


@inline
def holds(at, key):  # type: ignore[no-untyped-def]
    return read_word(at) == key and read_word(at + 8) != 0


@inline
def home(shard, key):  # type: ignore[no-untyped-def]
    """The address of the key's home."""
    offset = (np.uint64(key) - np.uint64(get(shard, LOW))) >> np.uint64(get(shard, SHIFT))
    return get(shard, ADDRESS) + ((np.int64(offset) * get(shard, SCALE)) >> 32) * ENTRY_BYTES


@inline
def end_of(shard):  # type: ignore[no-untyped-def]
    """The address behind the last entry that was ever written."""
    return get(shard, ADDRESS) + get(shard, END) * ENTRY_BYTES


@inline
def _is_below(at, key):  # type: ignore[no-untyped-def]
    return read_word(at + 8) != 0 and read_word(at) < key


@kernel
def _gallop(below, end, key):  # type: ignore[no-untyped-def]
    """The first entry behind ``below`` that is not below ``key``; ``below`` is."""
    width = np.int64(ENTRY_BYTES)
    while below + width < end and _is_below(below + width, key):
        below += width
        width *= 2
    while width > ENTRY_BYTES:
        width >>= 1
        if below + width < end and _is_below(below + width, key):
            below += width
    return below + width


@inline
def seek(shard, key):  # type: ignore[no-untyped-def]
    """The first entry from the key's home on that is free or not below the key: where it lies, or belongs."""
    at = home(shard, key)
    stop = at + LINEAR * ENTRY_BYTES
    while _is_below(at, key):
        at += ENTRY_BYTES
        if at == stop:
            return _gallop(at - ENTRY_BYTES, end_of(shard), key)
    return at


@inline
def enter(shard, at, key, word):  # type: ignore[no-untyped-def]
    """Put a new entry at ``at``; what lies there and behind moves by one, up to the first free entry."""
    while not is_free(at):
        next_key, next_word = read_word(at), read_word(at + 8)
        write_word(at, key)
        write_word(at + 8, word)
        key, word = next_key, next_word
        at += ENTRY_BYTES
    write_word(at, key)
    write_word(at + 8, word)
    put(shard, COUNT, get(shard, COUNT) + 1)
    put(shard, END, max(get(shard, END), (at - get(shard, ADDRESS)) // ENTRY_BYTES + 1))


@inline
def leave(shard, at):  # type: ignore[no-untyped-def]
    """Take an entry out; those behind it move back by one, up to the first that is free or at home."""
    after = at + ENTRY_BYTES
    while not is_free(after) and home(shard, read_word(after)) < after:
        write_word(at, read_word(after))
        write_word(at + 8, read_word(after + 8))
        at, after = after, after + ENTRY_BYTES
    write_word(at + 8, 0)
    put(shard, COUNT, get(shard, COUNT) - 1)


@kernel
def _span(shard):  # type: ignore[no-untyped-def]
    """How many keys the shard covers, in units of ``2**SHIFT``, less one."""
    return np.int64((np.uint64(get(shard, HIGH)) - np.uint64(get(shard, LOW))) >> np.uint64(get(shard, SHIFT)))


@kernel
def chance(shard):  # type: ignore[no-untyped-def]
    """In [0, 1); another whenever the shard has grown."""
    return (mix(np.uint64(get(shard, LOW)) ^ np.uint64(get(shard, SCALE))) >> np.uint64(11)) * 2.0**-53


@kernel
def _set_limit(shard):  # type: ignore[no-untyped-def]
    put(shard, LIMIT, (((_span(shard) + 1) * get(shard, SCALE)) >> 32) * (FULL_LOAD - EARLIER * chance(shard)))


@inline
def _homes_for(count):  # type: ignore[no-untyped-def]
    return np.int64(max(count, SMALLEST) / GROWN_LOAD) + 1


@kernel
def _fit(shard, homes):  # type: ignore[no-untyped-def]
    """Give the shard so many homes: a key's is its offset in the shard, cut to 32 bits, times SCALE, over 2**32."""
    width, shift = np.uint64(get(shard, HIGH)) - np.uint64(get(shard, LOW)), 0
    while width >> np.uint64(shift) >= np.uint64(1 << 32):
        shift += 1
    put(shard, SHIFT, shift)
    put(shard, SCALE, (homes << 32) // (_span(shard) + 1))
    _set_limit(shard)


@kernel
def open_shard(shard):  # type: ignore[no-untyped-def]
    """Begin an empty shard: LOW, HIGH and ADDRESS are set, and its memory is zero."""
    put(shard, COUNT, 0)
    put(shard, END, 0)
    _fit(shard, _homes_for(0))


@kernel
def widen(shard, count, entries, to_n):  # type: ignore[no-untyped-def]
    """Make room for ``count`` ids in all. False, and nothing has changed: the shard has to be split.

    ``to_n`` is scratch: int32 [entries].
    """
    if count > entries * SPLIT_LOAD:
        return False
    shift, scale, limit = get(shard, SHIFT), get(shard, SCALE), get(shard, LIMIT)
    _fit(shard, _homes_for(count))
    # Homes are never closer than before: no entry may move to the left.
    put(shard, SCALE, max(get(shard, SCALE), (scale >> (shift - get(shard, SHIFT))) + 1))
    _set_limit(shard)
    end = _plan(shard, to_n)
    if end >= entries - 1:
        put(shard, SHIFT, shift)
        put(shard, SCALE, scale)
        put(shard, LIMIT, limit)
        return False
    _spread(shard, to_n)
    put(shard, END, max(end, get(shard, END)))
    return True


@kernel
def _plan(shard, to_n):  # type: ignore[no-untyped-def]
    """Write to which position each entry goes, in order; returns the one behind the last."""
    first, count = get(shard, ADDRESS), get(shard, COUNT)
    at, free, done = first, first, 0
    while done < count:
        if not is_free(at):
            free = max(home(shard, read_word(at)), free) + ENTRY_BYTES
            to_n[done] = (free - first) // ENTRY_BYTES - 1
            done += 1
        at += ENTRY_BYTES
    return (free - first) // ENTRY_BYTES


@kernel
def _spread(shard, to_n):  # type: ignore[no-untyped-def]
    """Move the entries there, the last one first: none goes to the left, so none is overwritten."""
    at, left = end_of(shard), get(shard, COUNT)
    while left > 0:
        at -= ENTRY_BYTES
        if not is_free(at):
            left -= 1
            to = get(shard, ADDRESS) + np.int64(to_n[left]) * ENTRY_BYTES
            if to != at:
                _carry(at, to)


@inline
def _carry(at, to):  # type: ignore[no-untyped-def]
    write_word(to, read_word(at))
    write_word(to + 8, read_word(at + 8))
    write_word(at + 8, 0)


@kernel
def key_at(shard, rank):  # type: ignore[no-untyped-def]
    """The key that ``rank`` others are below."""
    at = get(shard, ADDRESS)
    while rank > 0 or is_free(at):
        if not is_free(at):
            rank -= 1
        at += ENTRY_BYTES
    return read_word(at)


@kernel
def split_off(shard, upper, entries):  # type: ignore[no-untyped-def]
    """Move what lies above the new HIGH of ``shard`` to ``upper``, whose LOW, HIGH and ADDRESS are set."""
    first, stop, moved = seek(shard, get(upper, LOW)), end_of(shard), 0
    for at in range(first, stop, ENTRY_BYTES):
        moved += not is_free(at)
    # All of them fit behind the last home, should that be the home of all.
    _fit(upper, min(_homes_for(moved), entries - 2 - moved))
    free = get(upper, ADDRESS)
    for at in range(first, stop, ENTRY_BYTES):
        if not is_free(at):
            to = max(home(upper, read_word(at)), free)
            _carry(at, to)
            free = to + ENTRY_BYTES
    put(upper, COUNT, moved)
    put(upper, END, (free - get(upper, ADDRESS)) // ENTRY_BYTES)
    put(shard, COUNT, get(shard, COUNT) - moved)
    # The shard will grow next, so a little more memory stays than it needs; but not to the end, which would split it.
    end = (first - get(shard, ADDRESS)) // ENTRY_BYTES
    put(shard, END, min(get(shard, END), max(end, min(np.int64(end * KEPT), entries - 2))))
    _set_limit(shard)


@kernel
def read_shard(shard, from_key, ids_n, places_n):  # type: ignore[no-untyped-def]
    """Copy the ids whose keys are not below ``from_key``, and their places; returns how many."""
    found = 0
    for at in range(seek(shard, from_key), end_of(shard), ENTRY_BYTES):
        if not is_free(at):
            ids_n[found], places_n[found] = id_of(read_word(at)), ~read_word(at + 8)
            found += 1
    return found
