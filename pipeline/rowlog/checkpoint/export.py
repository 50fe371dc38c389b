"""Exports: a whole table of a checkpoint as npz, Parquet or safetensors, or the dense weights as npz, for other programs.

A table's arrays, rows in ascending order of ids, every row ever updated:

    ids         int64 [n]
    weights     [n, dim] of its dtype; bfloat16, which few programs read, as float32, which holds it exactly
    version     int64 [n, 2]: (generation, step) of the last update
    state_NAME  one per state column, [n, width], likewise
    meta_NAME   one per meta column, [n, width], of its dtype
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.files import write_atomically
from pipeline.rowlog.checkpoint.array_files import FORMS, check_place, write_arrays
from pipeline.rowlog.checkpoint.reader import CheckpointReader
from pipeline.rowlog.checkpoint.row_arrays import RowArray, RowArrays
from pipeline.rowlog.checkpoint.table_reader import RowChunk
from pipeline.rowlog.errors import ExportFailed
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.version import unpack_versions

DENSE_BLOB = "dense.npz"
Part = Callable[[RowChunk], npt.NDArray[Any]]


def export_table(reader: CheckpointReader, table: str, out: str) -> None:
    """Write a table to ``out``, atomically, in bounded memory: the rows are read once, or once for each array.

    Raises UnknownTable, CheckpointCorrupt, ExportFailed, DiskFull.
    """
    layout = reader.entry(table).spec.layout
    behind = [(f"{column.role}_{column.name}", column) for column in layout.columns[1:]]
    columns = [
        RowArray(name, _dtype(column), (column.width,), _column(layout, column))
        for name, column in (("weights", layout.columns[0]), *behind)
    ]
    arrays = [
        RowArray("ids", np.dtype(np.int64), (), lambda chunk: chunk.ids_n),
        columns[0],
        RowArray("version", np.dtype(np.int64), (2,), lambda chunk: unpack_versions(chunk.versions_n)),
        *columns[1:],
    ]
    write_arrays(reader.files, out, RowArrays(reader.num_rows(table), lambda: reader.rows(table), arrays))


def export_dense(reader: CheckpointReader, out: str) -> None:
    """Write the dense weights to ``out``, atomically: the npz that the checkpoint holds. Raises UnknownBlob, ExportFailed."""
    if os.path.splitext(out)[1] in FORMS:
        raise ExportFailed(f"cannot write {out}: the dense weights are written as npz; name it so")
    check_place(reader.files, out)
    write_atomically(reader.files, out, reader.blob(DENSE_BLOB))


def _dtype(column: Column) -> np.dtype[Any]:
    return np.dtype("float32" if column.dtype == "bfloat16" else column.dtype)


def _column(layout: RowLayout, column: Column) -> Part:
    read = layout.singles if column.dtype == "bfloat16" else layout.view
    return lambda chunk: read(chunk.rows_nb, column.name)
