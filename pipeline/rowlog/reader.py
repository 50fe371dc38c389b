"""Reads checkpoints. Everything is checked as it is read; memory stays within a few chunks, however large a table
is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.files import Files
from pipeline.rowlog.catalog import read_catalog
from pipeline.rowlog.chunks import Int64s, RowBytes, RowChunk, chunk_bytes, decode_chunk
from pipeline.rowlog.errors import CheckpointCorrupt, NoCheckpoint, UnknownBlob, UnknownTable
from pipeline.rowlog.manifest import MANIFEST_NAME, Chunk, Manifest, TableEntry, checksum, decode_manifest
from pipeline.rows.arrays import read_only_ids
from pipeline.rows.spec import TableSpec


@dataclass(frozen=True, slots=True)
class FoundRows:
    """Rows in the order asked. Where ``found_n`` is False the row is not in the checkpoint: bytes and version are
    zeros."""

    rows_nb: RowBytes
    versions_n: Int64s
    found_n: npt.NDArray[np.bool_]


class CheckpointReader:
    """One checkpoint. Safe to share by threads: it keeps nothing but the manifest. Every method blocks."""

    def __init__(self, files: Files, path: str) -> None:
        """Read the manifest of the checkpoint in directory ``path`` and see that every file has its size.

        Raises CheckpointCorrupt, OtherFormat, or FileNotFoundError.
        """
        self.files = files
        self.path = path
        manifest = os.path.join(path, MANIFEST_NAME)
        self.manifest: Manifest = decode_manifest(files.read(manifest), manifest)
        for table in self.manifest.tables.values():
            self._check_size(os.path.join(path, table.file), table.size)
        for blob in self.manifest.blobs.values():
            self._check_size(os.path.join(path, blob.file), blob.size)

    @classmethod
    def newest(cls, files: Files, directory: str) -> CheckpointReader:
        """The newest checkpoint that a ``CheckpointWriter`` finished in ``directory``. Raises NoCheckpoint."""
        names = read_catalog(files, directory)
        if not names:
            raise NoCheckpoint(directory)
        return cls(files, os.path.join(directory, names[0]))

    @property
    def tables(self) -> list[TableSpec]:
        """The tables, in the order in which they were added."""
        return [entry.spec for entry in self.manifest.tables.values()]

    def entry(self, table: str) -> TableEntry:
        """Raises UnknownTable."""
        if table not in self.manifest.tables:
            raise UnknownTable(self.path, table, self.manifest.tables)
        return self.manifest.tables[table]

    def num_rows(self, table: str) -> int:
        return self.entry(table).num_rows

    def rows(self, table: str) -> Iterator[RowChunk]:
        """All rows of a table as ``(ids, rows, versions)``, ids ascending, a few MiB at a time. Raises
        CheckpointCorrupt."""
        entry = self.entry(table)
        for chunk in entry.chunks:
            yield self._read_chunk(entry, chunk)

    def find(self, table: str, ids: Any) -> FoundRows:
        """Some rows of a table; duplicates allowed. Reads each chunk that may hold one of them once."""
        entry, ids_n = self.entry(table), read_only_ids(ids)
        found = FoundRows(
            entry.spec.layout.empty(ids_n.shape[0]),
            np.zeros(ids_n.shape[0], np.int64),
            np.zeros(ids_n.shape[0], np.bool_),
        )
        last_ids = np.array([chunk.last_id for chunk in entry.chunks], dtype=np.int64)
        chunk_n = np.searchsorted(last_ids, ids_n)
        for number in np.unique(chunk_n[chunk_n < last_ids.shape[0]]):
            _copy_found(self._read_chunk(entry, entry.chunks[number]), np.flatnonzero(chunk_n == number), ids_n, found)
        return found

    def blob(self, name: str) -> bytes:
        """One named byte string. Raises UnknownBlob, CheckpointCorrupt."""
        if name not in self.manifest.blobs:
            raise UnknownBlob(self.path, name, self.manifest.blobs)
        entry = self.manifest.blobs[name]
        return self._read(os.path.join(self.path, entry.file), 0, entry.size, entry.checksum)

    def _read_chunk(self, entry: TableEntry, chunk: Chunk) -> RowChunk:
        size = chunk_bytes(entry.spec.layout, chunk.num_rows)
        data = self._read(os.path.join(self.path, entry.file), chunk.offset, size, chunk.checksum)
        return decode_chunk(data, chunk.num_rows)

    def _read(self, path: str, offset: int, size: int, expected: str) -> bytes:
        data = self.files.read(path, offset, size)
        if len(data) != size:
            raise CheckpointCorrupt(path, offset + len(data), f"the file ends; {size - len(data)} bytes are missing")
        if checksum(data) != expected:
            raise CheckpointCorrupt(path, offset, f"these {size} bytes do not have their checksum {expected}")
        return data

    def _check_size(self, path: str, size: int) -> None:
        if not self.files.exists(path):
            raise CheckpointCorrupt(path, 0, "the file is missing")
        found = self.files.size(path)
        if found != size:
            raise CheckpointCorrupt(path, min(found, size), f"the file has {found} bytes instead of {size}")


def _copy_found(chunk: RowChunk, asked: Int64s, ids_n: Int64s, found: FoundRows) -> None:
    """Copy the rows that ``ids_n[asked]`` name from a chunk into the answer."""
    at = np.searchsorted(chunk.ids_n, ids_n[asked])
    hit = (at < chunk.ids_n.shape[0]) & (chunk.ids_n[np.minimum(at, chunk.ids_n.shape[0] - 1)] == ids_n[asked])
    found.rows_nb[asked[hit]] = chunk.rows_nb[at[hit]]
    found.versions_n[asked[hit]] = chunk.versions_n[at[hit]]
    found.found_n[asked[hit]] = True
