"""From id to place: where in the row log the newest row of each id lies. Every int64 is an ordinary id.

Ids are spread by a hash over shards of up to some 27,000, each in memory of its own (``shard_kernels`` has the rules).
So growing touches one shard at a time: no call waits for all ids to move, and nothing takes a second copy of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.rowlog import places_kernels as kernels
from pipeline.rowlog import shard_kernels as shards
from pipeline.rowlog.directory import HIGHEST, LOWEST, Directory
from pipeline.rowlog.errors import BadPlace
from pipeline.rows.arrays import read_only_ids

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
FEWEST_ENTRIES: Final = 128
"""Memory of a shard, in entries: the least that is allowed. So few are for tests."""
GROUPED_FROM: Final = 1 << 20
GROUP: Final = 1 << 22
"""A put of many ids first brings so many at a time into the order of their shards, in 40 bytes of scratch an id: what one
shard gets is then near in the processor's caches.
"""


class PlaceIndex:
    """See the module docstring. Not thread-safe: one writer at a time, and no reader beside it. All calls release the
    GIL.

    Memory: 16 bytes an entry; entries are filled to 0.73 .. 0.85, for crafted sets of ids to no less than a third.
    """

    def __init__(self, expected: int = 0, shard_entries: int = 1 << 15) -> None:
        """Room for ``expected`` ids from the start. ``shard_entries``: FEWEST_ENTRIES or more."""
        self.directory = Directory(shard_entries)
        self.reserve(expected)

    @property
    def count(self) -> int:
        """How many ids it holds."""
        return int(self.directory.shards_kf[:, shards.COUNT].sum())

    @property
    def nbytes(self) -> int:
        """Memory held: pages of entries that were written, and the directory."""
        return self.directory.nbytes

    def reserve(self, count: int) -> None:
        """Make room for ``count`` ids in all, so that no put of new ids has to."""
        self.directory.reserve(count)

    def find(self, ids_n: Any) -> Int64s:
        """The place of each id, -1 where absent. int64 [n]; duplicates allowed."""
        ids_n = read_only_ids(ids_n)
        places_n = np.empty(ids_n.shape[0], dtype=np.int64)
        kernels.find_places(*self.directory.for_kernels, ids_n, places_n)
        return places_n

    def put(self, ids_n: Any, places_n: Any) -> Int64s:
        """Enter ids, or replace their places. The place each had, -1 where it is new. int64 [n].

        Raises BadPlace for a place below 0, and nothing has changed; IndexMemory, and some of the ids are entered.
        """
        ids_n, places_n = _pairs(ids_n, places_n)
        if ids_n.shape[0] < GROUPED_FROM:
            return self._put(ids_n, places_n)
        old_n = np.empty(ids_n.shape[0], dtype=np.int64)
        for start in range(0, ids_n.shape[0], GROUP):
            part = slice(start, start + GROUP)
            grouped_ids_n, grouped_places_n, order_n = kernels.group(ids_n[part], places_n[part])
            old_n[part][order_n] = self._put(read_only_ids(grouped_ids_n), read_only_ids(grouped_places_n))
        return old_n

    def _put(self, ids_n: Int64s, places_n: Int64s) -> Int64s:
        old_n = np.empty(ids_n.shape[0], dtype=np.int64)
        entries, scratch, done = self.directory.shard_entries, self.directory.scratch, 0
        while True:
            done = kernels.put_places(*self.directory.for_kernels, ids_n, places_n, done, old_n, entries, scratch)
            if done == ids_n.shape[0]:
                return old_n
            self.directory.divide(int(shards.key_of(ids_n[done])))

    def move(self, ids_n: Any, places_n: Any, from_n: Any) -> Bools:
        """Replace the place of each id that is at ``from_n`` now. Which were: bool [n]. Raises BadPlace."""
        ids_n, places_n = _pairs(ids_n, places_n)
        from_n = _one_for_each(from_n, ids_n)
        moved_n = np.empty(ids_n.shape[0], dtype=np.bool_)
        kernels.move_places(*self.directory.for_kernels, ids_n, places_n, from_n, moved_n)
        return moved_n

    def remove(self, ids_n: Any) -> Int64s:
        """Forget ids. The place each had, -1 where absent (also at the second of two equal ids). int64 [n].

        Their memory is kept for ids to come.
        """
        ids_n = read_only_ids(ids_n)
        old_n = np.empty(ids_n.shape[0], dtype=np.int64)
        kernels.remove_places(*self.directory.for_kernels, ids_n, old_n)
        return old_n

    def items(self) -> Iterator[tuple[Int64s, Int64s]]:
        """All ids and their places, one shard after the other: copies, int64 [up to some 27,000] each.

        The index may change between two pieces: an id that is there all the time comes once.
        """
        key = LOWEST
        while key <= HIGHEST:
            shard_f = self.directory.shards_kf[self.directory.number_of(key)]
            size = int(shard_f[shards.COUNT])
            ids_n, places_n = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
            found = shards.read_shard(shard_f.ctypes.data, key, ids_n, places_n)
            key = int(shard_f[shards.HIGH]) + 1
            yield ids_n[:found], places_n[:found]

    def ids(self) -> Int64s:
        """All ids: a copy, int64 [count]."""
        ids, done = np.empty(self.count, dtype=np.int64), 0
        for ids_n, _ in self.items():
            ids[done : done + ids_n.shape[0]] = ids_n
            done += ids_n.shape[0]
        return ids


def _pairs(ids_n: Any, places_n: Any) -> tuple[Int64s, Int64s]:
    ids_n = read_only_ids(ids_n)
    places_n = _one_for_each(places_n, ids_n)
    if places_n.shape[0] and places_n.min() < 0:
        position = int(np.argmax(places_n < 0))
        raise BadPlace(position, int(places_n[position]))
    return ids_n, places_n


def _one_for_each(values_n: Any, ids_n: Int64s) -> Int64s:
    places_n = read_only_ids(values_n)
    if places_n.shape != ids_n.shape:
        raise ValueError(f"one place for each id: got {places_n.shape[0]} for {ids_n.shape[0]} ids")
    return places_n
