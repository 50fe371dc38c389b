"""The digest of a cut: what a replica holds after decoding, so that it can check what it applied.

Each row counts ``rows_digest`` of its table, id, step and decoded weights (float32, little endian); each further
column that rides along counts as a row of table ``TABLE/COLUMN``; each tombstone counts as a row of no bytes and
version 0. The digest is the sum of all, mod 2**64: the order of rows and frames does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.rows.digest import TableRuns, rows_digest
from pipeline.rows.errors import BadCodec
from pipeline.wire.errors import FrameError
from pipeline.wire.row_runs import RowRuns, TableRows
from pipeline.wire.weights import RowBlock

MASK = (1 << 64) - 1


def runs_digest(runs: RowRuns, blocks: Iterable[RowBlock]) -> int:
    """The share of a frame's rows in its cut's digest. ``blocks`` are the same rows (``weights.split_runs``).

    Raises FrameError where a codec of somebody's own fails on them.
    """
    total, starts = extra_digest(runs), runs.starts
    for block in blocks:
        first, last = block.first, block.last
        low, high = starts[first], starts[last]
        table_runs = TableRuns(
            [head.table for head in runs.heads[first:last]],
            [start - low for start in starts[first : last + 1]],
            runs.ids_n[low:high],
            runs.versions_n[low:high],
        )
        try:
            total += block.codec.digest(block.encoded_nb, block.dim, table_runs)
        except BadCodec as error:
            raise FrameError(str(error), f"rows of table {table_runs.names[0]!r}") from error
    return total & MASK


def extra_digest(runs: RowRuns) -> int:
    """The share of what runs have besides weights: further columns, and tombstones."""
    if not len(runs.tombstones_m) and not runs.columns:
        return 0
    return sum(map(_extra_of, runs)) & MASK


def _extra_of(part: TableRows) -> int:
    total = 0
    for name, values in part.columns.items():
        total += column_digest(part.table, name, part.ids_n, _bytes_2d(values), part.versions_n)
    if len(part.tombstones_m):
        total += tombstones_digest(part.table, part.tombstones_m)
    return total


def column_digest(
    table: str,
    column: str,
    ids_n: npt.NDArray[np.int64],
    bytes_nb: npt.NDArray[np.uint8],
    versions_n: npt.NDArray[np.int64],
) -> int:
    """The share of a further column of rows of ``table``, uint8 [n, bytes of the column]."""
    return rows_digest(f"{table}/{column}", ids_n, bytes_nb, versions_n)


def tombstones_digest(table: str, ids_n: npt.NDArray[np.int64]) -> int:
    """The share of ids of ``table`` whose rows are gone."""
    count = len(ids_n)
    return rows_digest(table, ids_n, np.empty((count, 0), dtype=np.uint8), np.zeros(count, dtype=np.int64))


def _bytes_2d(values_nd: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    count, width = values_nd.shape
    return np.ascontiguousarray(values_nd).reshape(-1).view(np.uint8).reshape(count, width * values_nd.itemsize)
