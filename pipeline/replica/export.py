"""Exports a table of a replica, as the trainer's export does: states under ``state_NAME``, meta columns under ``meta_NAME``, those of
either that ride along in the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.files import RealFiles
from pipeline.replica.rowmap import Float32s, Int64s
from pipeline.replica.view import READ_CHUNK_ROWS, View
from pipeline.rowlog import RowArray, RowArrays, write_arrays
from pipeline.rows.layout import Column
from pipeline.rows.narrow import widen
from pipeline.rows.version import unpack_versions

Chunk = tuple[Int64s, Float32s, Int64s, dict[str, npt.NDArray[Any]]]


def export_table(view: View, table: str, path: str) -> int:
    """Write ``ids`` (rising), ``weights`` [n, dim], ``version`` [n, 2] (generation, step) and each column that rides along
    [n, width] (bfloat16 as float32, which holds it), to ``path``, atomically, in the form that its name says.

    Returns the number of rows. Memory: the ids and a chunk of rows; rows are read once, or once for each array.
    """
    ids_n = view.ids(table)
    dim = view.lookup(table, ids_n[:0]).shape[1]

    def chunks() -> Iterator[Chunk]:
        for start in range(0, len(ids_n), READ_CHUNK_ROWS):
            some = ids_n[start : start + READ_CHUNK_ROWS]
            yield some, *view.row_columns(table, some)

    arrays = [
        RowArray("ids", np.dtype(np.int64), (), lambda chunk: chunk[0]),
        RowArray("weights", np.dtype(np.float32), (dim,), lambda chunk: chunk[1]),
        RowArray("version", np.dtype(np.int64), (2,), lambda chunk: unpack_versions(chunk[2])),
    ]
    for column in view.carried(table):
        dtype = np.dtype("float32" if column.dtype == "bfloat16" else column.dtype)
        arrays.append(RowArray(f"{column.role}_{column.name}", dtype, (column.width,), partial(_column, column)))
    write_arrays(RealFiles(), path, RowArrays(len(ids_n), chunks, arrays))
    return len(ids_n)


def _column(column: Column, chunk: Chunk) -> npt.NDArray[Any]:
    stored = chunk[3][column.name]
    return widen(stored, column.dtype) if column.dtype == "bfloat16" else stored
