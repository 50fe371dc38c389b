"""Exports a table of a replica, as the trainer's export does, without the states, which a replica does not hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.files import RealFiles
from pipeline.replica.rowmap import Float32s, Int64s
from pipeline.replica.tables import READ_CHUNK_ROWS
from pipeline.replica.view import View
from pipeline.rowlog import NpzArray, write_npz
from pipeline.rows.version import unpack_versions


def export_table(view: View, table: str, path: str) -> int:
    """Write ``ids`` (rising), ``weights`` [n, dim] and ``version`` [n, 2] (generation, step) to ``path``, atomically.

    Returns the number of rows. Memory: the ids and a chunk of rows; rows are read once for each array.
    """
    ids_n = view.ids(table)
    dim = view.lookup(table, ids_n[:0]).shape[1]

    def chunks() -> Iterator[tuple[Float32s, Int64s]]:
        for start in range(0, len(ids_n), READ_CHUNK_ROWS):
            yield view.lookup_versions(table, ids_n[start : start + READ_CHUNK_ROWS])

    arrays = [
        NpzArray("ids", np.int64, (len(ids_n),), [ids_n]),
        NpzArray("weights", np.float32, (len(ids_n), dim), (weights_nd for weights_nd, _ in chunks())),
        NpzArray("version", np.int64, (len(ids_n), 2), (unpack_versions(versions_n) for _, versions_n in chunks())),
    ]
    write_npz(RealFiles(), path, arrays)
    return len(ids_n)
