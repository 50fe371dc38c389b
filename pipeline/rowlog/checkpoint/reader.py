"""Reads checkpoints. Everything is checked as it is read; memory stays within an index and a few chunks of one table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.files import Files
from pipeline.rowlog.checkpoint.catalog import read_catalog
from pipeline.rowlog.checkpoint.manifest import MANIFEST_NAME, Manifest, TableEntry, checksum, decode_manifest
from pipeline.rowlog.checkpoint.table_reader import Int64s, RowBytes, RowChunk, TableReader
from pipeline.rowlog.errors import CheckpointCorrupt, NoCheckpoint, UnknownBlob, UnknownTable
from pipeline.rowlog.log.mark import SavedRows, SavedTable
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.rowlog.log.row_reads import RowReads
from pipeline.rows.arrays import read_only_ids
from pipeline.rows.spec import TableSpec

READ_DEPTH = 32


@dataclass(frozen=True, slots=True)
class FoundRows:
    """Rows in the order asked. Where ``found_n`` is False the row is not in the checkpoint: bytes and version are
    zeros."""

    rows_nb: RowBytes
    versions_n: Int64s
    found_n: npt.NDArray[np.bool_]


class CheckpointReader:
    """One checkpoint; one thread at a time. Every method blocks, and may raise LogCorrupt for a segment, CheckpointCorrupt for
    anything else."""

    def __init__(self, files: Files, path: str, reads: Callable[[], RowReads] | None = None) -> None:
        """Read the manifest of the checkpoint in directory ``path`` and see that every file has its size.

        Raises CheckpointCorrupt, OtherFormat, or FileNotFoundError.
        """
        self.files, self.path, self._reads = files, path, reads or partial(RealReads, READ_DEPTH)
        manifest = os.path.join(path, MANIFEST_NAME)
        self.manifest: Manifest = decode_manifest(files.read(manifest), manifest)
        self.saved = SavedRows({name: self._located(entry) for name, entry in self.manifest.tables.items()})
        """The segments of each table, paths as they are to be used."""
        self._open: dict[str, TableReader] = {}
        for segment in self.saved.all_segments():
            self._check_size(segment.path, segment.size)
        for blob in self.manifest.blobs.values():
            self._check_size(os.path.join(path, blob.file), blob.size)

    def _located(self, entry: TableEntry) -> SavedTable:
        directory = os.path.abspath(self.path)
        segments = (
            replace(one, path=os.path.normpath(os.path.join(directory, one.path))) for one in entry.saved.segments
        )
        return replace(entry.saved, segments=tuple(segments))

    @classmethod
    def newest(cls, files: Files, directory: str, reads: Callable[[], RowReads] | None = None) -> CheckpointReader:
        """The newest checkpoint that a ``CheckpointWriter`` finished in ``directory``. Raises NoCheckpoint."""
        names = read_catalog(files, directory)
        if not names:
            raise NoCheckpoint(directory)
        return cls(files, os.path.join(directory, names[0]), reads)

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def tables(self) -> list[TableSpec]:
        """The tables, in the order in which they were added."""
        return [entry.spec for entry in self.manifest.tables.values()]

    def entry(self, table: str) -> TableEntry:
        """Raises UnknownTable."""
        if table not in self.manifest.tables:
            raise UnknownTable(self.path, table, self.manifest.tables)
        return self.manifest.tables[table]

    def table(self, table: str) -> TableReader:
        """Its footers are read at the first call. Raises UnknownTable."""
        spec = self.entry(table).spec
        if table not in self._open:
            self._open = {table: TableReader(spec, self.saved.tables[table], self.files, self._reads)}
        return self._open[table]

    def num_rows(self, table: str) -> int:
        return self.table(table).num_rows

    def rows(self, table: str) -> Iterator[RowChunk]:
        """All rows of a table as ``(ids, rows, versions)``, ids ascending, a few MiB at a time."""
        return self.table(table).rows()

    def versions(self, table: str) -> Iterator[tuple[Int64s, Int64s]]:
        """Ids and versions of all rows, in no order. Reads no rows."""
        return self.table(table).versions()

    def find(self, table: str, ids: Any) -> FoundRows:
        """Some rows of a table; duplicates allowed."""
        held, ids_n = self.table(table), read_only_ids(ids)
        places_n = held.index.find(ids_n)
        found_n = places_n >= 0
        found = FoundRows(
            self.entry(table).spec.layout.empty(len(ids_n)), np.zeros(len(ids_n), dtype=np.int64), found_n
        )
        if bool(found_n.any()):
            rows = held.read(ids_n[found_n], places_n[found_n])
            found.rows_nb[found_n], found.versions_n[found_n] = rows.rows_nb, rows.versions_n
        return found

    def blob(self, name: str) -> bytes:
        """One named byte string. Raises UnknownBlob, CheckpointCorrupt."""
        if name not in self.manifest.blobs:
            raise UnknownBlob(self.path, name, self.manifest.blobs)
        entry = self.manifest.blobs[name]
        path = os.path.join(self.path, entry.file)
        data = self.files.read(path, 0, entry.size)
        if len(data) != entry.size:
            raise CheckpointCorrupt(path, len(data), f"the file ends; {entry.size - len(data)} bytes are missing")
        if checksum(data) != entry.checksum:
            raise CheckpointCorrupt(path, 0, f"these {entry.size} bytes do not have their checksum {entry.checksum}")
        return data

    def _check_size(self, path: str, size: int) -> None:
        if not self.files.exists(path):
            raise CheckpointCorrupt(path, 0, "the file is missing")
        found = self.files.size(path)
        if found != size:
            raise CheckpointCorrupt(path, min(found, size), f"the file has {found} bytes instead of {size}")
