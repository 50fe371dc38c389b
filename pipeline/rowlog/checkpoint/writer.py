"""Writes checkpoints, each one atomically.

    DIR/checkpoints.json            names of the finished checkpoints, newest first (``catalog``)
    DIR/step-000000000123/          one checkpoint
        manifest.json               what is in it (``manifest``): segments of the row log, and blobs
        blob-0000                   one named byte string
    DIR/.new-step-000000000124/     being written, or left by a crash

The walk: ``begin``, ``add_table``, ``add_blob``, ``commit``. Segments are durable when they are named here (``log.mark``). A
checkpoint is written under its temporary name, every file synced; the directory is renamed; the catalog names it; then those
that are not kept are removed. A crash anywhere leaves the checkpoints that the catalog named. After an error the unfinished
checkpoint is removed, and ``begin`` starts anew. Who holds segments for checkpoints looks at ``names`` afterwards.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pipeline.files import Files, create_anew, temporary_name
from pipeline.rowlog.checkpoint.catalog import free_name, read_catalog, remove_leftovers, remove_tree, write_catalog
from pipeline.rowlog.checkpoint.manifest import (
    MANIFEST_NAME,
    BlobEntry,
    Manifest,
    TableEntry,
    checksum,
    encode_manifest,
)
from pipeline.rowlog.log.mark import SavedTable
from pipeline.rows.spec import TableSpec


class CheckpointWriter:
    """See the module docstring. One writer per directory; not thread-safe. Blocks."""

    def __init__(self, files: Files, directory: str, *, keep: int = 1) -> None:
        """Touches nothing yet. ``keep``: how many checkpoints stay, the new one included."""
        if keep < 1:
            raise ValueError(f"keep is {keep}: at least the checkpoint just written stays")
        self._files, self._directory, self._keep = files, directory, keep
        self._path: str | None = None
        self.names: list[str] = []
        """Which checkpoints stay, newest first; known after ``commit``."""

    def begin(self, step: int, generation: int, extra: Mapping[str, Any]) -> None:
        """Start a checkpoint. What crashed writers left is removed. ``extra``: plain JSON values for the manifest."""
        if self._path is not None:
            raise ValueError(f"{self._path} is being written: commit or abort it first")
        self._files.make_dirs(self._directory)
        self._named = read_catalog(self._files, self._directory)
        remove_leftovers(self._files, self._directory, self._named)
        self._name = free_name(step, self._named)
        path = temporary_name(os.path.join(self._directory, self._name))
        self._files.make_dirs(path)
        self._path = path
        self._step, self._generation, self._extra = step, generation, dict(extra)
        self._tables: dict[str, TableEntry] = {}
        self._blobs: dict[str, BlobEntry] = {}

    def add_table(self, spec: TableSpec, saved: SavedTable) -> None:
        """Name a table and the segments that hold its rows. Paths as they are used; the manifest has them as they lie to it."""
        with self._removing():
            if spec.name in self._tables:
                raise ValueError(f"table {spec.name!r} was added before")
            segments = tuple(replace(one, path=self._path_in_manifest(one.path)) for one in saved.segments)
            self._tables[spec.name] = TableEntry(spec, replace(saved, segments=segments))

    def _path_in_manifest(self, path: str) -> str:
        """Relative to the checkpoint where the run's directory holds both, so that it can be moved as a whole."""
        path, directory = os.path.abspath(path), os.path.abspath(self._directory)
        if path.startswith(os.path.join(os.path.dirname(directory), "")):
            return os.path.relpath(path, os.path.join(directory, self._name))
        return path

    def add_blob(self, name: str, data: bytes) -> None:
        """Write one named byte string, durable."""
        with self._removing() as path:
            if name in self._blobs:
                raise ValueError(f"blob {name!r} was added before")
            file_name = f"blob-{len(self._blobs):04d}"
            self._write(os.path.join(path, file_name), data)
            self._blobs[name] = BlobEntry(file_name, len(data), checksum(data))

    def commit(self) -> str:
        """Make the checkpoint durable and the newest one; remove what is not kept. Returns its directory."""
        with self._removing() as path:
            manifest = Manifest(self._step, self._generation, self._extra, self._tables, self._blobs)
            self._write(os.path.join(path, MANIFEST_NAME), encode_manifest(manifest))
            self._files.sync_dir(path)
            final = os.path.join(self._directory, self._name)
            self._files.rename(path, final)
        # From here on an error removes nothing: nobody could say whether the catalog names the checkpoint already.
        self._path = None
        self._files.sync_dir(self._directory)
        self.names = [self._name, *self._named][: self._keep]
        write_catalog(self._files, self._directory, self.names)
        remove_leftovers(self._files, self._directory, self.names)
        return final

    def abort(self) -> None:
        """Remove what ``begin`` started. No effect if nothing is being written. Never raises an OSError."""
        if self._path is None:
            return
        path, self._path = self._path, None
        with contextlib.suppress(OSError):
            remove_tree(self._files, path)

    @contextlib.contextmanager
    def _removing(self) -> Iterator[str]:
        """The unfinished checkpoint's directory; it is removed when an error passes, so that a full disk is not left
        full."""
        if self._path is None:
            raise ValueError("begin() comes first: no checkpoint is being written")
        try:
            yield self._path
        except BaseException:
            self.abort()
            raise

    def _write(self, path: str, data: bytes) -> None:
        file = create_anew(self._files, path)
        try:
            file.write(data)
            file.sync()
        finally:
            file.close()
