"""Columns that ride along beside the weights (states, meta): how a replica keeps those of one table.

Of each row their bytes lie one behind the other, ``extra_nx`` uint8 [n, x], in the order in which the header names them.

Legend: n rows; x bytes of all carried columns of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.replica.errors import UnknownColumn
from pipeline.rows.layout import Column, stored_dtype
from pipeline.rows.spec import TableSpec

RowBytes = npt.NDArray[np.uint8]


class Carried:
    """See the module docstring. Stateless."""

    def __init__(self, spec: TableSpec, names: Sequence[str] = ()) -> None:
        """``names``: columns of the table's layout, in its order."""
        self.table = spec.name
        self.columns: dict[str, Column] = {name: spec.layout.column(name) for name in names}
        ends = list(accumulate(column.nbytes for column in self.columns.values()))
        self._ends = dict(zip(self.columns, ends, strict=True))
        self.row_bytes = ends[-1] if ends else 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Carried) and self.columns == other.columns

    __hash__ = None  # type: ignore[assignment]

    def join(self, columns: Mapping[str, RowBytes], count: int) -> RowBytes:
        """Columns as a frame has them, side by side: [n, x]."""
        if not self.columns or not count:
            return np.empty((count, self.row_bytes), dtype=np.uint8)
        return np.concatenate([columns[name] for name in self.columns], axis=1)

    def of_rows(self, spec: TableSpec, rows_nb: RowBytes) -> RowBytes:
        """Those of packed rows of ``spec``, which has these columns: [n, x], a new array."""
        layout, count = spec.layout, len(rows_nb)
        views = {name: layout.view(rows_nb, name) for name in self.columns}
        return self.join({name: _bytes_of(view, self.columns[name]) for name, view in views.items()}, count)

    def pick(self, extra_nx: RowBytes, name: str) -> npt.NDArray[Any]:
        """One column of the dtype that the table stores, [n, width]; a new array. Raises UnknownColumn."""
        if name not in self.columns:
            raise UnknownColumn(self.table, name, self.columns)
        column, end = self.columns[name], self._ends[name]
        values_nb = np.ascontiguousarray(extra_nx[:, end - column.nbytes : end])
        return values_nb.view(stored_dtype(column.dtype)).reshape(len(extra_nx), column.width)

    def describe(self) -> str:
        return f"carries {', '.join(self.columns) or 'no other columns'}"


def _bytes_of(values: npt.NDArray[Any], column: Column) -> RowBytes:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(len(values), column.nbytes)
