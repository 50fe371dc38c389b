"""The row log: rows of many tables in append-only segments on one or several disks, found by an index in memory.

    DIR/TABLE-0000000001.seg        ``segment_format``; a table's segments take the directories in turn

The walk: ``put`` copies rows into memory, where ``get`` finds them at once; full extents and footers go to the writing
thread (``write_behind``); the compactor moves what is left of old segments to new ones. ``flush`` ends all segments and
returns when they are durable. What was put after that is durable at the next one.

A checkpoint names segments (``mark``). A log that is opened with checkpoints begins with what the newest of them holds, and
keeps the files of all of them until they are released; with none it begins empty.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.files import DirectoryLock, Files, WritableFile
from pipeline.rowlog.errors import UnknownTable
from pipeline.rowlog.log.bound import Bound
from pipeline.rowlog.log.compactor import Compactor
from pipeline.rowlog.log.errors import LogClosed
from pipeline.rowlog.log.log_table import LogTable
from pipeline.rowlog.log.mark import Beginning, Held, Mark
from pipeline.rowlog.log.options import RowLogOptions
from pipeline.rowlog.log.records import Rows
from pipeline.rowlog.log.restore import restore
from pipeline.rowlog.log.row_reads import RowReads
from pipeline.rowlog.log.segment import Extent, OpenSegment, Segment
from pipeline.rowlog.log.segment_format import describe, encode_footer, encode_header
from pipeline.rowlog.log.sinks import Sinks
from pipeline.rowlog.log.write_behind import WriteBehind
from pipeline.rows.spec import NAME_PATTERN, TableSpec

Int64s = npt.NDArray[np.int64]
RowBytes = npt.NDArray[np.uint8]
OURS = re.compile(rf"{NAME_PATTERN}-[0-9]{{10}}\.seg")
"""Segments as ``_path`` names them. Those of a stream have other names: a directory given by mistake keeps them."""


class RowLog:
    """Safe to share by threads. All calls block; none belongs on the event loop's thread."""

    def __init__(
        self,
        directories: Sequence[str],
        files: Files,
        reads: Callable[[], RowReads],
        options: RowLogOptions,
        lock: Callable[[str], AbstractContextManager[object]] = DirectoryLock,
        beginning: Beginning | None = None,
    ) -> None:
        """Touches nothing yet. ``reads`` makes what reads records; the log closes it. ``lock`` guards each directory.

        ``beginning``: what ``open`` begins with; None: empty.
        """
        assert directories
        self.directories, self.options = tuple(directories), options
        self.tables: dict[str, LogTable] = {}
        self._files, self._make_reads, self._lock = files, reads, lock
        self._held = ExitStack()
        self._being_written: set[WritableFile] = set()
        self._is_open = False
        self._beginning = beginning or Beginning()
        self.held: list[Held] = []
        """What is held for each of ``beginning.held``, once it is open."""

    def open(self, specs: Sequence[TableSpec]) -> None:
        """Begin with the rows of the newest checkpoint, or empty; segments that no checkpoint names are removed.

        Raises LockedDirectory, LogCorrupt, OtherFormat.
        """
        with ExitStack() as held:
            for directory in self.directories:
                self._files.make_dirs(directory)
                held.enter_context(self._lock(directory))
            self._clear(self._beginning.paths())
            self._reads = self._make_reads()
            held.callback(self._reads.close)
            self._start(specs)
            self._held = held.pop_all()

    def _clear(self, named: set[str]) -> None:
        for directory in self.directories:
            for name in self._files.list(directory):
                path = os.path.join(directory, name)
                if OURS.fullmatch(name) and path not in named:
                    self._files.remove(path)

    def _start(self, specs: Sequence[TableSpec]) -> None:
        self._writer = WriteBehind(self.directories[0], self.options.write_behind_bytes)
        self.tables = {spec.name: self._table(spec) for spec in specs}
        self.held = restore(self.tables, self._beginning, self._files, self._reads)
        self._bound = Bound(self.directories[0], self.tables, self.options.bytes)
        self._compactor = Compactor(self.tables, self._files, self._writer, self.options)
        self._is_open = True
        self._writer.start()
        self._compactor.start()

    def _table(self, spec: TableSpec) -> LogTable:
        sinks = Sinks(
            extent=lambda filling, extent: self._writer.add(
                lambda: self._write_extent(spec.name, filling, extent), extent.data.nbytes
            ),
            seal=lambda filling: self._writer.add(lambda: self._seal(spec.name, filling)),
            retire=lambda segment: self._writer.add(lambda: self._remove(segment)),
        )
        options = self.options
        return LogTable(spec, sinks, self._reads, self._path, options.segment_bytes, options.extent_bytes)

    def put(self, table: str, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s) -> None:
        """Write or replace rows, ids distinct. Waits while too much is to be written or compacted.

        Raises LogFailed; LogFull, and none of these rows is taken.
        """
        held = self.table(table)
        self._writer.wait_for_room()
        self._compactor.wait_for_space(held)
        self._make_room(held, len(ids_n))
        held.put(ids_n, rows_nb, versions_n)
        self._compactor.told_of(len(ids_n) * held.records.stride)

    def _make_room(self, table: LogTable, rows: int) -> None:
        """Where the bound on bytes is near, compaction may free some first. Raises LogFull."""
        if not self._bound.has_room(table, rows):
            self._compactor.compact()
            self._bound.check(table, rows)

    def get(self, table: str, ids_n: Int64s) -> tuple[Rows, npt.NDArray[np.bool_]]:
        """Rows in the order asked, and which of them are held; absent ones are zeros. Raises LogCorrupt."""
        held = self.table(table)
        self._writer.check()
        rows_nb = np.empty((len(ids_n), held.records.row_bytes), dtype=np.uint8)
        rows = Rows(rows_nb, np.empty(len(ids_n), dtype=np.int64))
        return rows, held.get(ids_n, rows)

    def delete(self, table: str, ids_n: Int64s) -> None:
        """Forget rows; absent ids are passed over. Waits as ``put`` does. Raises LogFailed."""
        held = self.table(table)
        self._writer.wait_for_room()
        self._compactor.wait_for_space(held)
        held.delete(ids_n)
        self._compactor.told_of(len(ids_n) * held.records.stride)

    def flush(self) -> None:
        """End all segments; they are durable when this returns. Raises LogFailed."""
        self._check_open()
        for table in self.tables.values():
            table.rotate()
        self._writer.drain()

    def mark(self) -> Mark:
        """Begin a checkpoint of what was put so far: quick, and nothing is written here. One at a time."""
        self._check_open()
        self._mark = Mark(self.tables, self._files, self._writer, self._bound)
        return self._mark

    def put_since_mark(self, table: str) -> Iterator[Int64s]:
        """``Mark.put_since`` of the checkpoint that is being written."""
        self.table(table)
        return self._mark.put_since(table)

    def compact(self) -> None:
        """Compact until there is no more garbage than the options allow. Blocks."""
        self._check_open()
        self._compactor.compact()

    def merge(self, most: int) -> None:
        """Leave no table with more than ``most`` segments that are far from full, for who marks often and puts little. Blocks."""
        self._check_open()
        self._compactor.merge(most)

    def close(self) -> None:
        """Stop, without ending segments: what was not flushed is gone. May be called twice."""
        if self._is_open:
            self._is_open = False
            with self._held:
                self._compactor.close()
                self._writer.close()
                for file in self._being_written:
                    file.close()

    def table(self, name: str) -> LogTable:
        self._check_open()
        if name not in self.tables:
            raise UnknownTable(self.directories[0], name, self.tables)
        return self.tables[name]

    def stats(self) -> Mapping[str, Any]:
        """Figures for a report."""
        segments = [segment for table in self.tables.values() for segment in table.all_segments(kept=True)]
        return {
            "rows": sum(table.index.count for table in self.tables.values()),
            "index_bytes": sum(table.index.nbytes for table in self.tables.values()),
            "segments": len(segments),
            "disk_bytes": self._bound.held_bytes,
            "written_bytes": self._writer.written_bytes,
            "compacted_rows": self._compactor.moved_rows,
            "put_waited_s": round(self._compactor.waited_s, 3),
            **self._reads.stats(),
        }

    def _check_open(self) -> None:
        if not self._is_open:
            raise LogClosed(self.directories[0])

    def _path(self, spec: TableSpec, number: int) -> str:
        directory = self.directories[number % len(self.directories)]
        return os.path.join(directory, f"{spec.name}-{number:010d}.seg")

    # On the writing thread.

    def _write_extent(self, table: str, filling: OpenSegment, extent: Extent) -> None:
        held = self.tables[table]
        if filling.file is None:
            filling.file = self._files.create(filling.segment.path)
            self._being_written.add(filling.file)
            filling.file.write(encode_header(describe(held.spec, filling.segment.number, held.records)))
            filling.segment.reading = self._reads.open(filling.segment.path)
        filling.file.write(extent.data[: held.records.data_bytes(extent.count)].data)
        held.written(filling, extent)

    def _seal(self, table: str, filling: OpenSegment) -> None:
        held, file, count = self.tables[table], filling.file, filling.segment.num_rows
        assert file is not None, "a segment is begun with a row, and that row's extent was written before"
        footer, checksum = encode_footer(filling.ids_n[:count], filling.versions_n[:count], file.size)
        file.write(footer)
        file.sync()
        self._files.sync_dir(os.path.dirname(filling.segment.path))
        file.close()
        self._being_written.discard(file)
        held.sealed(filling, file.size, checksum)
        self._compactor.told_of(0)

    def _remove(self, segment: Segment) -> None:
        self._reads.give_back(segment.reading)
        self._files.remove(segment.path)
