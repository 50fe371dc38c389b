"""Writes one table's rows into its file, chunk behind chunk."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from pipeline.files import Files
from pipeline.rowlog.chunks import encode_chunk, rows_per_chunk
from pipeline.rowlog.manifest import Chunk, TableEntry, checksum
from pipeline.rows.arrays import read_only, read_only_ids
from pipeline.rows.spec import TableSpec


class TableFile:
    """Not thread-safe. Owns one open file."""

    def __init__(self, files: Files, directory: str, name: str, spec: TableSpec) -> None:
        self.spec = spec
        self._name = name
        self._chunks: list[Chunk] = []
        self._file = files.create(os.path.join(directory, name))

    def add(self, ids: Any, rows: Any, versions: Any) -> None:
        """Append rows: ids [n], ascending and above all before; rows uint8 [n, row_bytes]; versions int64 [n]."""
        ids_n, versions_n, rows_nb = read_only_ids(ids), read_only_ids(versions), read_only(rows, np.uint8)
        shape = (ids_n.shape[0], self.spec.layout.row_bytes)
        if rows_nb.shape != shape or versions_n.shape != ids_n.shape:
            found = f"rows {rows_nb.shape}, versions {versions_n.shape}"
            raise ValueError(f"table {self.spec.name!r}: {found}; need {shape}")
        if not ids_n.shape[0]:
            return
        if (ids_n[1:] <= ids_n[:-1]).any() or (self._chunks and int(ids_n[0]) <= self._chunks[-1].last_id):
            raise ValueError(f"table {self.spec.name!r}: the ids of a checkpoint's rows ascend, from call to call too")
        step = rows_per_chunk(self.spec.layout)
        for start in range(0, shape[0], step):
            piece = slice(start, start + step)
            data = encode_chunk(ids_n[piece], rows_nb[piece], versions_n[piece])
            offset, piece_ids = self._file.write(data), ids_n[piece]
            span = (int(piece_ids[0]), int(piece_ids[-1]))
            self._chunks.append(Chunk(offset, piece_ids.shape[0], *span, checksum(data)))

    def finish(self) -> TableEntry:
        """Make the file durable and describe it."""
        self._file.sync()
        self.close()
        return TableEntry(self.spec, self._name, self._file.size, tuple(self._chunks))

    def close(self) -> None:
        self._file.close()
