"""Exports: a whole table, or the dense weights, of a checkpoint as an npz for other programs.

A table's arrays, rows in ascending order of ids, every row ever updated:

    ids         int64 [n]
    weights     float32 [n, dim]
    version     int64 [n, 2]: (generation, step) of the last update
    state_NAME  one per state column, [n, width] of its dtype
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.files import write_atomically
from pipeline.rowlog.checkpoint.npz import NpzArray, check_place, write_npz
from pipeline.rowlog.checkpoint.reader import CheckpointReader
from pipeline.rowlog.checkpoint.table_reader import RowChunk
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.version import unpack_versions

DENSE_BLOB = "dense.npz"
Part = Callable[[RowChunk], npt.NDArray[Any]]


def export_table(reader: CheckpointReader, table: str, out: str) -> None:
    """Write a table to ``out``, atomically, in bounded memory: the rows are read once for each array.

    Raises UnknownTable, CheckpointCorrupt, ExportFailed, DiskFull.
    """
    entry = reader.entry(table)
    layout, count = entry.spec.layout, reader.num_rows(table)

    def pieces(part: Part) -> Iterator[npt.NDArray[Any]]:
        return (part(chunk) for chunk in reader.rows(table))

    arrays = [
        NpzArray("ids", np.int64, (count,), pieces(lambda chunk: chunk.ids_n)),
        NpzArray("weights", np.float32, (count, layout.dim), pieces(_column(layout, layout.columns[0]))),
        NpzArray("version", np.int64, (count, 2), pieces(lambda chunk: unpack_versions(chunk.versions_n))),
    ]
    for column in layout.states:
        shape = (count, column.width)
        arrays.append(NpzArray(f"state_{column.name}", column.dtype, shape, pieces(_column(layout, column))))
    write_npz(reader.files, out, arrays)


def export_dense(reader: CheckpointReader, out: str) -> None:
    """Write the dense weights to ``out``, atomically: the npz that the checkpoint holds. Raises UnknownBlob, ExportFailed."""
    check_place(reader.files, out)
    write_atomically(reader.files, out, reader.blob(DENSE_BLOB))


def _column(layout: RowLayout, column: Column) -> Part:
    return lambda chunk: layout.view(chunk.rows_nb, column.name)
