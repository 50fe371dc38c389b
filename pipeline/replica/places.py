"""From id to place, where a place outlives what points to it: a row that is replaced stays where it lies until it is freed.

The walk: ``take`` gives places to rows that nobody finds yet; they are written, id and all; ``point`` shows them, and returns the places
that were shown before; ``free`` gives those to later rows. Every int64 is an ordinary id.

Legend: n ids of one call; c entries; p places.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.replica import place_kernels
from pipeline.replica.blocks import Blocks
from pipeline.replica.kernels import read_ids
from pipeline.rows.arrays import read_only_ids
from pipeline.rows.errors import IndexFull
from pipeline.rows.index import MAX_IDS, SMALLEST
from pipeline.rows.index_kernels import EMPTY, mark_positions, move_entries

Int64s = npt.NDArray[np.int64]
SPARSE = 64
"""Of so many places one at most."""


class PlaceIndex:
    """One thread takes and points, and no reader beside ``point`` and ``detach``; readers may be beside ``take``. Any thread frees.

    Memory: 8 bytes an entry, filled to 3/8 .. 3/4, and 8 bytes a free place. The ids lie with the rows, in ``blocks``.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self.entries_c: npt.NDArray[np.uint64] = np.full(SMALLEST, EMPTY, dtype=np.uint64)
        """Another array after ``point``."""
        self._count = np.zeros(1, dtype=np.int64)
        self._used = 0
        self._free_p = np.empty(SMALLEST, dtype=np.int64)
        """A stack; its first ``_num_free``."""
        self._num_free = 0
        self._freed: list[Int64s] = []
        """What is not on the stack yet."""
        self._freeing = threading.Lock()

    @property
    def count(self) -> int:
        """How many ids it holds."""
        return int(self._count[0])

    @property
    def used(self) -> int:
        """Places are below this."""
        return self._used

    @property
    def num_free(self) -> int:
        """Places below ``used`` that are given out next."""
        with self._freeing:
            self._push_freed()
            return self._num_free

    @property
    def nbytes(self) -> int:
        return int(self.entries_c.nbytes + self._free_p.nbytes)

    def find(self, ids_n: Any) -> Int64s:
        """The place of each id, -1 where absent. int64 [n]; duplicates allowed."""
        ids_n = read_only_ids(ids_n)
        places_n = np.empty(len(ids_n), dtype=np.int64)
        place_kernels.find_places(self.entries_c, self._blocks.rows_k, self._blocks.stride, ids_n, places_n)
        return places_n

    def take(self, count: int) -> Int64s:
        """Places for so many rows, with room in the blocks; found by nobody until ``point``. Raises IndexFull at 2**32 - 2 places."""
        places_n = np.empty(count, dtype=np.int64)
        with self._freeing:
            self._push_freed()
            again = min(count, self._num_free)
            self._num_free -= again
            places_n[:again] = self._free_p[self._num_free : self._num_free + again]
        used = self._used + count - again
        if used > MAX_IDS:
            raise IndexFull(self._used)
        places_n[again:] = np.arange(self._used, used)
        self._blocks.reserve(used)
        self._used = used
        return places_n

    def point(self, ids_n: Int64s, places_n: Int64s) -> Int64s:
        """Show what lies at places that were taken for these ids. Returns the place that each had, -1 where it was absent: int64 [n]."""
        ids_n, done = read_only_ids(ids_n), 0
        old_n = np.empty(len(ids_n), dtype=np.int64)
        while True:
            entries_c, rows_k, stride = self.entries_c, self._blocks.rows_k, self._blocks.stride
            most = len(entries_c) * 3 // 4
            done = place_kernels.point_ids(entries_c, rows_k, stride, self._count, ids_n, done, most, places_n, old_n)
            if done == len(ids_n):
                return old_n
            self.entries_c = np.full(2 * len(entries_c), EMPTY, dtype=np.uint64)
            move_entries(entries_c, self.entries_c)

    def detach(self, ids_n: Int64s) -> Int64s:
        """Forget ids. Returns the place that each had, -1 where it was absent: int64 [n]."""
        ids_n = read_only_ids(ids_n)
        old_n = np.empty(len(ids_n), dtype=np.int64)
        rows_k, stride = self._blocks.rows_k, self._blocks.stride
        place_kernels.detach_ids(self.entries_c, rows_k, stride, self._count, ids_n, old_n)
        return old_n

    def free(self, places_n: Int64s) -> None:
        """Give back places that nobody points to or reads; numbers below 0 are passed over. Keeps the array; takes no time."""
        with self._freeing:
            self._freed.append(places_n)

    def items(self) -> tuple[Int64s, Int64s]:
        """All ids and their places, places rising: copies, int64 [count] each."""
        held_p = np.zeros(self._used, dtype=np.bool_)
        mark_positions(self.entries_c, held_p)
        places_n = np.flatnonzero(held_p).astype(np.int64, copy=False)
        ids_n = np.empty(len(places_n), dtype=np.int64)
        read_ids(self._blocks.rows_k, self._blocks.stride, places_n, ids_n)
        return ids_n, places_n

    def ids(self) -> Int64s:
        """All ids, in the order of their places: a copy, int64 [count]."""
        return self.items()[0]

    def _push_freed(self) -> None:
        """What was freed is given out again in order, so that rows which come together are written one behind the other."""
        if not self._freed:
            return
        places_n = self._in_order(np.concatenate(self._freed))
        self._freed = []
        total = self._num_free + len(places_n)
        if total > len(self._free_p):
            free_p = np.empty(max(total, 3 * len(self._free_p) // 2), dtype=np.int64)
            free_p[: self._num_free] = self._free_p[: self._num_free]
            self._free_p = free_p
        self._free_p[self._num_free : total] = places_n
        self._num_free = total

    def _in_order(self, places_n: Int64s) -> Int64s:
        """Distinct places, rising, without what is below 0. Marking them costs a tenth of sorting where they are many."""
        places_n = places_n[places_n >= 0]
        if SPARSE * len(places_n) < self._used:
            return np.sort(places_n)
        marked_p = np.zeros(self._used, dtype=np.bool_)
        marked_p[places_n] = True
        return np.flatnonzero(marked_p).astype(np.int64, copy=False)
