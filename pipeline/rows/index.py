"""From id to position: where a holder of rows (a tier, a replica) keeps each id's row.

Positions are dense: the first id gets 0, the next 1, and those of removed ids are used again, the last freed first. So
a holder keeps rows in one array and grows it as ``capacity`` does. Every int64 is an ordinary id.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.rows import index_kernels as kernels
from pipeline.rows.arrays import read_only_ids
from pipeline.rows.errors import IndexFull

Int64s = npt.NDArray[np.int64]
MAX_IDS = 2**32 - 2
SMALLEST = 16


class IdIndex:
    """See the module docstring. Not thread-safe: one writer at a time, and no reader beside it. All calls release the
    GIL.

    Memory: 8 bytes a position, and 8 bytes an entry; entries are filled to 3/8 .. 3/4.
    """

    def __init__(self, capacity_hint: int = 0) -> None:
        """Room for ``capacity_hint`` ids from the start; it grows by doubling."""
        entries = SMALLEST
        while entries * 3 // 4 < capacity_hint:
            entries *= 2
        self._allocate(entries)
        self._ids_p = np.empty(entries * 3 // 4, dtype=np.int64)
        self._state = np.array([0, 0, -1], dtype=np.int64)

    @property
    def count(self) -> int:
        """How many ids it holds."""
        return int(self._state[kernels.COUNT])

    @property
    def capacity(self) -> int:
        """Positions lie below this; it grows with ``insert``."""
        return int(self._ids_p.shape[0])

    @property
    def nbytes(self) -> int:
        return int(self._entries_c.nbytes + self._ids_p.nbytes)

    @property
    def arrays(self) -> tuple[npt.NDArray[np.uint64], Int64s]:
        """``entries_c, ids_p`` for ``index_kernels.find_position`` and ``find_positions`` in compiled code of the
        caller.

        Valid until the next ``insert`` or ``remove``.
        """
        return self._entries_c, self._ids_p

    def find(self, ids_n: Any) -> Int64s:
        """The position of each id, -1 where absent. int64 [n]; duplicates allowed."""
        ids_n = read_only_ids(ids_n)
        positions_n = np.empty(ids_n.shape[0], dtype=np.int64)
        kernels.find_positions(self._entries_c, self._ids_p, ids_n, positions_n)
        return positions_n

    def insert(self, ids_n: Any) -> Int64s:
        """The position of each id, new ones entered in the order given. int64 [n]; duplicates get one position.

        Raises IndexFull at 2**32 - 2 ids; those before it are entered then.
        """
        ids_n = read_only_ids(ids_n)
        positions_n = np.empty(ids_n.shape[0], dtype=np.int64)
        done = 0
        while True:
            done = kernels.insert_ids(
                self._entries_c, self._ids_p, self._state, ids_n, done, self.capacity, positions_n
            )
            if done == ids_n.shape[0]:
                return positions_n
            self._grow()

    def remove(self, ids_n: Any) -> Int64s:
        """Forget ids. The position each had, -1 where absent (also at the second of two equal ids). int64 [n]."""
        ids_n = read_only_ids(ids_n)
        positions_n = np.empty(ids_n.shape[0], dtype=np.int64)
        kernels.remove_ids(self._entries_c, self._ids_p, self._state, ids_n, positions_n)
        return positions_n

    def items(self) -> tuple[Int64s, Int64s]:
        """All ids and their positions, positions ascending: copies, int64 [count] each."""
        held_p = np.zeros(int(self._state[kernels.USED]), dtype=np.bool_)
        kernels.mark_positions(self._entries_c, held_p)
        positions = np.flatnonzero(held_p).astype(np.int64, copy=False)
        return self._ids_p[positions], positions

    def ids(self) -> Int64s:
        """All ids, in the order of their positions: a copy, int64 [count]."""
        return self.items()[0]

    def _allocate(self, entries: int) -> None:
        self._entries_c = np.full(entries, kernels.EMPTY, dtype=np.uint64)

    def _grow(self) -> None:
        entries = 2 * self._entries_c.shape[0]
        if entries * 3 // 4 > MAX_IDS:
            raise IndexFull(self.capacity)
        ids_p = np.empty(entries * 3 // 4, dtype=np.int64)
        ids_p[: self.capacity] = self._ids_p
        old_c = self._entries_c
        self._allocate(entries)
        kernels.move_entries(old_c, self._entries_c)
        self._ids_p = ids_p
