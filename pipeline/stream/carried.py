"""Columns that ride along beside the weights: the exact bytes that lie in the packed rows.

Legend: n rows; b bytes of a packed row; w bytes of a column.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline.wire.frames import StreamedTable
from pipeline.wire.row_runs import RowBytes


def carried_bytes(table: StreamedTable) -> int:
    """What they add to a row on the wire."""
    return sum(table.spec.layout.column(name).nbytes for name in table.carries)


def carried_columns(runs: Iterable[tuple[StreamedTable, int]], rows_nb: RowBytes) -> dict[int, dict[str, RowBytes]]:
    """By number of the run and name: new arrays uint8 [n, w] of packed rows [n, b], run behind run; ``runs`` are (table, rows). A run
    without rows has none.
    """
    found, start = {}, 0
    for number, (table, count) in enumerate(runs):
        if table.carries and count:
            found[number] = {name: column_bytes(table, name, rows_nb[start : start + count]) for name in table.carries}
        start += count
    return found


def column_bytes(table: StreamedTable, name: str, rows_nb: RowBytes) -> RowBytes:
    """One of them, of rows of one table."""
    layout = table.spec.layout
    start = layout.offsets[name]
    return np.ascontiguousarray(rows_nb[:, start : start + layout.column(name).nbytes])
