"""Exports a table of a replica, as the trainer's export does, without the states, which a replica does not hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.files import RealFiles
from pipeline.replica.rowmap import Float32s, Int64s
from pipeline.replica.tables import READ_CHUNK_ROWS
from pipeline.replica.view import View
from pipeline.rowlog import RowArray, RowArrays, write_arrays
from pipeline.rows.version import unpack_versions


def export_table(view: View, table: str, path: str) -> int:
    """Write ``ids`` (rising), ``weights`` [n, dim] and ``version`` [n, 2] (generation, step) to ``path``, atomically, in the form that its
    name says.

    Returns the number of rows. Memory: the ids and a chunk of rows; rows are read once, or once for each array.
    """
    ids_n = view.ids(table)
    dim = view.lookup(table, ids_n[:0]).shape[1]

    def chunks() -> Iterator[tuple[Int64s, Float32s, Int64s]]:
        for start in range(0, len(ids_n), READ_CHUNK_ROWS):
            some = ids_n[start : start + READ_CHUNK_ROWS]
            yield some, *view.lookup_versions(table, some)

    arrays = [
        RowArray("ids", np.dtype(np.int64), (), lambda chunk: chunk[0]),
        RowArray("weights", np.dtype(np.float32), (dim,), lambda chunk: chunk[1]),
        RowArray("version", np.dtype(np.int64), (2,), lambda chunk: unpack_versions(chunk[2])),
    ]
    write_arrays(RealFiles(), path, RowArrays(len(ids_n), chunks, arrays))
    return len(ids_n)
