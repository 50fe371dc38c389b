"""Rows of one table as they stood at one cut, for views that still read them: by the places where they lie, or copied.

Of each id the first row that is kept counts; a row that was absent is kept as one of version ``ABSENT``. A view may ask for the first
time while others do: then the ids are entered, once.

Legend: n ids of one call; p ids kept, each once.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from pipeline.replica import kernels
from pipeline.replica.place_kernels import keep_first
from pipeline.rows.arrays import read_only_ids
from pipeline.rows.index import IdIndex

if TYPE_CHECKING:
    from pipeline.replica.rowmap import RowMap

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
RowBytes = npt.NDArray[np.uint8]
INDEX_BYTES: Final = 40
"""What a kept id takes: it and its place, and finding it once a view asks, counted from the start."""
UNSET: Final = -3


class OldPlaces:
    """See the module docstring. The places stay taken until ``release``."""

    def __init__(self, rows: RowMap) -> None:
        self._rows = rows
        self._kept: list[tuple[Int64s, Int64s]] = []
        """What is not in the index yet, in the order in which it came."""
        self._index = IdIndex()
        self._places_p = np.empty(0, dtype=np.int64)
        self._num_ids = self._num_rows = 0
        self._finding = threading.Lock()

    @property
    def nbytes(self) -> int:
        return INDEX_BYTES * self._num_ids + self._rows.row_bytes * self._num_rows

    @property
    def num_rows(self) -> int:
        """Places that are taken."""
        return self._num_rows

    def keep(self, ids_n: Int64s, places_n: Int64s) -> None:
        """Where rows lay until now; -1: there was none. Keeps the ids."""
        self._num_ids += len(ids_n)
        self._num_rows += int(np.count_nonzero(places_n >= 0))
        self._kept.append((ids_n, np.where(places_n < 0, kernels.ABSENT, places_n)))

    def ids(self) -> Int64s:
        """All ids kept."""
        self._find()
        return self._index.ids()

    def read_found(self, ids_n: Int64s, out_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes | None = None) -> None:
        """Overwrite what is given for the ids that are kept."""
        self._find()
        if not self._index.count:
            return
        positions_n = self._index.find(ids_n)
        places_n = np.where(positions_n < 0, -1, self._places_p[positions_n])
        self._rows.read_places(places_n, out_nd, versions_n, extra_nx)

    def absorb(self, newer: OldPlaces) -> None:
        """Take over what ``newer``, kept behind this, holds and this one does not; the rest is freed."""
        newer._find()
        self._find()
        ids_n, positions_n = newer._index.items()
        self.keep(ids_n, newer._places_p[positions_n])
        self._find()

    def release(self) -> None:
        """Nobody reads them any more: the places go to later rows."""
        places = [places_n for _, places_n in self._kept]
        self._rows.index.free(np.concatenate([self._places_p, *places]))
        self._kept, self._places_p = [], np.empty(0, dtype=np.int64)

    def _find(self) -> None:
        with self._finding:
            for ids_n, places_n in self._kept:
                positions_n = self._index.insert(read_only_ids(ids_n))
                had, count = len(self._places_p), self._index.count
                if count > had:
                    unset = np.full(max(count - had, had // 2), UNSET, dtype=np.int64)
                    self._places_p = np.concatenate([self._places_p, unset])
                spare_n = np.empty(len(ids_n), dtype=np.int64)
                num_spare = keep_first(positions_n, places_n, UNSET, self._places_p, spare_n)
                self._rows.index.free(spare_n[:num_spare])
                self._num_rows -= num_spare
            self._kept, self._num_ids = [], self._index.count


class OldCopies:
    """See the module docstring, for rows that lie elsewhere and are written over there."""

    def __init__(self, copies: RowMap) -> None:
        """``copies``: empty, for rows of this kind."""
        self._copies = copies
        self._kept: list[tuple[Int64s, Float32s, Int64s, RowBytes]] = []
        self._kept_bytes = 0
        self._finding = threading.Lock()

    @property
    def nbytes(self) -> int:
        return self._kept_bytes + self._copies.nbytes

    def keep(self, ids_n: Int64s, weights_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes) -> None:
        """Rows as they stood until now, version ``ABSENT`` where there was none. Keeps the arrays."""
        self._kept.append((ids_n, weights_nd, versions_n, extra_nx))
        arrays = ids_n, weights_nd, versions_n, extra_nx
        self._kept_bytes += sum(int(array.nbytes) for array in arrays) + INDEX_BYTES * len(ids_n)

    def ids(self) -> Int64s:
        """All ids kept."""
        self._find()
        return self._copies.ids()

    def read_found(self, ids_n: Int64s, out_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes | None = None) -> None:
        """Overwrite what is given for the ids that are kept."""
        self._find()
        self._copies.read_found(ids_n, out_nd, versions_n, extra_nx)

    def absorb(self, newer: OldCopies) -> None:
        """Take over what ``newer``, kept behind this, holds and this one does not."""
        ids_n, rows = newer.ids(), newer._copies
        weights_nd = np.empty((len(ids_n), rows.dim), dtype=np.float32)
        versions_n = np.empty(len(ids_n), dtype=np.int64)
        extra_nx = np.empty((len(ids_n), rows.extra_bytes), dtype=np.uint8)
        rows.read_found(ids_n, weights_nd, versions_n, extra_nx)
        self.keep(ids_n, weights_nd, versions_n, extra_nx)
        self._find()

    def release(self) -> None:
        """The copies go with this object."""

    def _find(self) -> None:
        with self._finding:
            for ids_n, weights_nd, versions_n, extra_nx in self._kept:
                fresh_n = self._copies.index.find(ids_n) < 0
                if bool(fresh_n.any()):
                    self._copies.put(ids_n[fresh_n], weights_nd[fresh_n], versions_n[fresh_n], extra_nx[fresh_n])
            self._kept, self._kept_bytes = [], 0
