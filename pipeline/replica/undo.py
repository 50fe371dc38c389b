"""Old rows, kept for views that are pinned while newer cuts are applied.

Rules.

1. Applied states are numbered: the serial rises by one with each applied cut. A view pins the serial it was opened at.
2. A layer with base b holds the rows as they stood at serial b, of those that changed after b and before the next
   layer's base: ``old_rows``.
3. A view of serial v reads the rows as they are now, and then takes what the layers with base >= v hold, the newest
   layer first: the oldest one, written last, wins.
4. While a cut is applied in pieces there is a layer for the state before it, pinned or not: a view may be opened in the
   middle. Afterwards layers that no view tells apart are merged.
5. Above ``limit_bytes`` the oldest layer goes, and the views that need it end.
6. What a layer that goes held is released: nobody reads it any more.

Everything here is called under the replica's write lock, but ``read_over``, which needs its read lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from pipeline.replica.rowmap import Float32s, Int64s, RowBytes
from pipeline.replica.table import OldRows

if TYPE_CHECKING:
    from pipeline.replica.view import View


class Layer:
    """See rule 2. ``extra_bytes`` counts dense weights that only pinned views still need."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.extra_bytes = 0
        self.tables: dict[str, OldRows] = {}

    @property
    def nbytes(self) -> int:
        return self.extra_bytes + sum(rows.nbytes for rows in self.tables.values())

    def absorb(self, newer: Layer) -> None:
        """Take over what ``newer`` holds and this one does not."""
        for table, rows in newer.tables.items():
            if table in self.tables:
                self.tables[table].absorb(rows)
            else:
                self.tables[table] = rows
        self.extra_bytes += newer.extra_bytes

    def release(self) -> None:
        """Nobody reads it any more."""
        for rows in self.tables.values():
            rows.release()


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
        return self._applying is None or self._keeps

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

    @property
    def _keeps(self) -> bool:
        """Whether there is a layer for the state before the cut that is being applied."""
        return bool(self.layers) and self.layers[-1].base == self._applying

    def begin_closed(self, serial: int) -> None:
        """The same where no view is pinned, and none is opened before ``end``: nothing is kept."""
        self._applying = serial

    def old_rows(self, table: str, make: Callable[[], OldRows]) -> OldRows | None:
        """Where rows of a table go that are about to be replaced; None: nobody will read them. ``bound`` comes after."""
        if not self._keeps:
            return None
        tables = self.layers[-1].tables
        if table not in tables:
            tables[table] = make()
        return tables[table]

    def bound(self) -> None:
        """Rule 5."""
        while self.layers and self.nbytes > self.limit_bytes:
            oldest = self.layers.pop(0)
            oldest.release()
            for serial in [serial for serial in self._pins if serial <= oldest.base]:
                for view in self._pins.pop(serial):
                    view.expired = True
                    self.expired += 1

    def save_dense(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """The dense weights are about to be replaced; views of them keep them alive."""
        if self._keeps:
            self.layers[-1].extra_bytes += sum(array.nbytes for array in arrays.values())
            self.bound()

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

    def _trim(self) -> None:
        """Let layers go that are older than every view."""
        needed = [*self._pins, *([] if self._applying is None else [self._applying])]
        oldest = min(needed, default=None)
        kept = [] if oldest is None else [layer for layer in self.layers if layer.base >= oldest]
        for layer in self.layers[: len(self.layers) - len(kept)]:
            layer.release()
        self.layers = kept

    def _merge(self) -> None:
        """One layer where no view tells two apart: none is pinned behind the older's base, up to the newer's."""
        merged: list[Layer] = []
        for layer in self.layers:
            if merged and not any(merged[-1].base < serial <= layer.base for serial in self._pins):
                merged[-1].absorb(layer)
            else:
                merged.append(layer)
        self.layers = merged
        self.bound()
