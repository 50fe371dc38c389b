"""Old rows, kept for views that are pinned while newer cuts are applied.

Rules.

1. Applied states are numbered: the serial rises by one with each applied cut. A view pins the serial it was opened at.
2. A layer with base b holds the rows as they stood at serial b, of those that changed after b and before the next
   layer's base. An absent row is kept as one of version ``ABSENT``.
3. A view of serial v reads the rows as they are now, and then takes what the layers with base >= v hold, the newest
   layer first: the oldest one, written last, wins.
4. While a cut is applied there is a layer for the state before it, pinned or not: a view may be opened in the middle.
   Afterwards layers that no view tells apart are merged.
5. Above ``limit_bytes`` the oldest layer goes, and the views that need it end.
6. A layer takes rows as they come and finds them by id only when a view asks, or when it is merged: mostly it is dropped
   before that. A merged layer holds each row once, however often it changed since.

Everything here is called under the replica's write lock, but ``read_over``, which needs its read lock.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.replica.rowmap import Float32s, Int64s, RowBytes, RowMap

if TYPE_CHECKING:
    from pipeline.replica.view import View

ABSENT = -1
INDEX_BYTES = 24
"""What finding a row by id will take, once a view asks: counted from the start."""


class Layer:
    """See rule 2. ``extra_bytes`` counts dense weights that only pinned views still need."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.extra_bytes = 0
        self._found: dict[str, RowMap] = {}
        self._kept: list[tuple[str, Int64s, Float32s, Int64s, RowBytes]] = []
        """What is not in ``_found`` yet, in the order in which it came."""
        self._kept_bytes = 0
        self._finding = threading.Lock()
        """Views may ask for the first time at once."""

    @property
    def nbytes(self) -> int:
        return self.extra_bytes + self._kept_bytes + sum(rows.nbytes for rows in self._found.values())

    @property
    def tables(self) -> dict[str, RowMap]:
        """All rows, by table and id."""
        self._find()
        return self._found

    def _find(self) -> None:
        with self._finding:
            for table, ids_n, weights_nd, versions_n, extra_nx in self._kept:
                rows = self._found.setdefault(table, RowMap(weights_nd.shape[1], extra_nx.shape[1]))
                fresh_n = rows.index.find(ids_n) < 0
                if bool(fresh_n.any()):
                    rows.put(ids_n[fresh_n], weights_nd[fresh_n], versions_n[fresh_n], extra_nx[fresh_n])
            self._kept, self._kept_bytes = [], 0

    def keep(self, table: str, ids_n: Int64s, weights_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes) -> None:
        """Keep rows that the layer does not hold yet: the first value is the one that stood at ``base``. Keeps the arrays."""
        self._kept.append((table, ids_n, weights_nd, versions_n, extra_nx))
        arrays = ids_n, weights_nd, versions_n, extra_nx
        self._kept_bytes += sum(int(array.nbytes) for array in arrays) + INDEX_BYTES * len(ids_n)

    def absorb(self, newer: Layer) -> None:
        """Take over what ``newer`` holds and this one does not."""
        for table, rows in newer.tables.items():
            ids_n = rows.index.ids()
            weights_nd = np.empty((len(ids_n), rows.dim), dtype=np.float32)
            versions_n = np.empty(len(ids_n), dtype=np.int64)
            extra_nx = np.empty((len(ids_n), rows.extra_bytes), dtype=np.uint8)
            rows.read_found(ids_n, weights_nd, versions_n, extra_nx)
            self.keep(table, ids_n, weights_nd, versions_n, extra_nx)
        self._find()
        self.extra_bytes += newer.extra_bytes


class UndoLog:
    """See the module docstring."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.layers: list[Layer] = []
        self._pins: dict[int, set[View]] = {}
        self._applying: int | None = None
        self.expired = 0

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self.layers)

    @property
    def num_pinned(self) -> int:
        return sum(len(views) for views in self._pins.values())

    @property
    def is_open(self) -> bool:
        """Whether a view may be opened: not while a cut is applied whose old rows found no room."""
        return self._applying is None or bool(self.layers and self.layers[-1].base == self._applying)

    def pin(self, serial: int, view: View) -> None:
        self._pins.setdefault(serial, set()).add(view)

    def unpin(self, serial: int, view: View) -> None:
        views = self._pins.get(serial)
        if views is not None:
            views.discard(view)
            if not views:
                del self._pins[serial]
        self._trim()

    def begin(self, serial: int) -> None:
        """A cut is about to change the state of ``serial``."""
        self.begin_closed(serial)
        self.layers.append(Layer(serial))

    def begin_closed(self, serial: int) -> None:
        """The same where no view is pinned, and none is opened before ``end``: nothing is kept."""
        self._applying = serial

    def save(self, table: str, ids_n: Int64s, weights_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes) -> None:
        """Rows as they stand, before they change."""
        if self.is_open:
            self.layers[-1].keep(table, ids_n, weights_nd, versions_n, extra_nx)
            self._expire()

    def save_dense(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """The dense weights are about to be replaced; views of them keep them alive."""
        if self.is_open:
            self.layers[-1].extra_bytes += sum(array.nbytes for array in arrays.values())
            self._expire()

    def end(self) -> None:
        """The cut is applied."""
        self._applying = None
        self._trim()
        self._merge()

    def read_over(
        self,
        serial: int,
        table: str,
        ids_n: Int64s,
        out_nd: Float32s,
        versions_n: Int64s,
        extra_nx: RowBytes | None = None,
    ) -> None:
        """Turn rows as they are now into rows as they stood at ``serial``, in place."""
        for layer in reversed(self.layers):
            if layer.base < serial:
                break
            rows = layer.tables.get(table)
            if rows is not None:
                rows.read_found(ids_n, out_nd, versions_n, extra_nx)

    def _expire(self) -> None:
        while self.layers and self.nbytes > self.limit_bytes:
            base = self.layers.pop(0).base
            for serial in [serial for serial in self._pins if serial <= base]:
                for view in self._pins.pop(serial):
                    view.expired = True
                    self.expired += 1

    def _trim(self) -> None:
        """Drop layers that are older than every view."""
        needed = [*self._pins, *([] if self._applying is None else [self._applying])]
        oldest = min(needed, default=None)
        self.layers = [] if oldest is None else [layer for layer in self.layers if layer.base >= oldest]

    def _merge(self) -> None:
        """One layer where no view tells two apart: none is pinned behind the older's base, up to the newer's."""
        merged: list[Layer] = []
        for layer in self.layers:
            if merged and not any(merged[-1].base < serial <= layer.base for serial in self._pins):
                merged[-1].absorb(layer)
            else:
                merged.append(layer)
        self.layers = merged
        self._expire()
