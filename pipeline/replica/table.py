"""One table of a replica as it is now: its rows, wherever they lie, and what is answered for all others.

Legend: n ids of one call; d weights of a row; x bytes of a row beside its weights (``carried``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from pipeline.replica import kernels
from pipeline.replica.carried import Carried
from pipeline.replica.cuts import StagedRows
from pipeline.replica.rowmap import Float32s, Int64s, RowBytes, RowMap
from pipeline.rows.arrays import read_only_ids
from pipeline.rows.initial import rule, table_key
from pipeline.rows.spec import TableSpec


class Named(Protocol):
    """Which rows a snapshot cut names."""

    def add(self, ids_n: Int64s, places_n: Int64s, /) -> None:
        """Rows that were shown, and what ``show`` returned."""

    def others(self) -> Int64s:
        """Ids held that were not named."""


class OldRows(Protocol):
    """Rows as they stood before they changed: ``old_rows``."""

    @property
    def nbytes(self) -> int: ...

    def ids(self) -> Int64s:
        """All ids kept."""

    def read_found(self, ids_n: Int64s, out_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes | None = None) -> None:
        """Overwrite what is given for the ids that are kept."""

    def absorb(self, newer: Any, /) -> None:
        """Take over what ``newer``, of the same rows and kept behind this, holds and this one does not."""

    def release(self) -> None:
        """Nobody reads them any more."""


class TableRows(Protocol):
    """Where the rows of one table lie: ``RowMap`` in memory, ``targets.LogRows`` on disk. One writer.

    What ``place`` returned is shown once, by the same object; ``old`` is what its ``old_rows`` made.
    """

    read_rows: int
    """So many rows may be read at once while a writer waits."""

    @property
    def count(self) -> int: ...

    def ids(self) -> Int64s:
        """All ids held, in any order: a copy."""

    def read_found(self, ids_n: Int64s, out_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes | None = None) -> None:
        """Overwrite the places of ids that are held, in place; duplicates allowed."""

    def place(self, rows: StagedRows) -> Any:
        """Prepare rows that nobody finds yet. The one call that may be beside readers."""

    def show(self, placed: Any, old: Any, /) -> Int64s:
        """Insert or replace these rows. Those that stood there go to ``old``, unless it is None."""

    def remove(self, ids_n: Int64s, old: Any = None) -> None:
        """Forget rows; absent ids are passed over."""

    def old_rows(self) -> OldRows: ...

    def naming(self) -> Named:
        """Rows of a snapshot cut are about to be shown."""


MakeRows = Callable[[TableSpec, Carried], TableRows]


def rows_in_memory(spec: TableSpec, carried: Carried) -> RowMap:
    return RowMap(spec.dim, carried.row_bytes)


class Table:
    """See the module docstring."""

    def __init__(self, spec: TableSpec, carried: Carried, rows: TableRows) -> None:
        self.spec, self.carried, self.rows = spec, carried, rows
        self._initial = (table_key(spec.seed, spec.name), *rule(spec.absent))

    def fill_initial(self, ids_n: Int64s, out_nd: Float32s, versions_n: Int64s) -> None:
        """Give initial weights to the rows whose version is not above 0, and version 0."""
        key, kind, base, scale, stored = self._initial
        kernels.fill_initial(key, read_only_ids(ids_n), kind, base, scale, stored, out_nd, versions_n)

    def empty_extra(self, count: int) -> RowBytes:
        """Where the columns beside the weights of so many rows go: zeros, as they begin."""
        return np.zeros((count, self.carried.row_bytes), dtype=np.uint8)

    def describe(self) -> str:
        spec = self.spec
        return f"dim {spec.dim}, seed {spec.seed}, {spec.absent.initializer}, {self.carried.describe()}"
