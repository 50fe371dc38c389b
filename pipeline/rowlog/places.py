"""From id to place: where the row log keeps each id's row. A position from the id index, and a place beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.rows.index import IdIndex

Int64s = npt.NDArray[np.int64]


class PlaceIndex:
    """Places are int64 >= 0. Not thread-safe: one writer at a time, and no reader beside it."""

    def __init__(self, expected: int = 0) -> None:
        self._index = IdIndex(expected)
        self._places = np.full(self._index.capacity, -1, dtype=np.int64)

    def find(self, ids_n: Any) -> Int64s:
        """The place of each id, -1 where absent; duplicates allowed."""
        at = self._index.find(ids_n)
        return np.where(at >= 0, self._places[at], -1)

    def put(self, ids_n: Any, places_n: Any) -> Int64s:
        """Enter or replace; ids distinct. The places they had, -1 where new."""
        before = self._index.find(ids_n)
        old = np.where(before >= 0, self._places[before], -1)
        at = self._index.insert(ids_n)
        if self._index.capacity > len(self._places):
            grown = np.full(self._index.capacity, -1, dtype=np.int64)
            grown[: len(self._places)] = self._places
            self._places = grown
        self._places[at] = places_n
        return old

    def move(self, ids_n: Any, places_n: Any, from_n: Any) -> npt.NDArray[np.bool_]:
        """Replace places only where the id is at ``from_n`` now; returns where that was so."""
        at = self._index.find(ids_n)
        same: npt.NDArray[np.bool_] = (at >= 0) & (self._places[at] == from_n)
        self._places[at[same]] = places_n[same]
        return same

    def remove(self, ids_n: Any) -> Int64s:
        """Forget ids. The places they had, -1 where absent."""
        at = self._index.remove(ids_n)
        return np.where(at >= 0, self._places[at], -1)

    def ids(self) -> Int64s:
        """All ids: a copy."""
        return self._index.ids()

    @property
    def count(self) -> int:
        return self._index.count

    @property
    def nbytes(self) -> int:
        return self._index.nbytes + self._places.nbytes
