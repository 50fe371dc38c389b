"""A replica's own row log, and its applied position: they become durable together, or not at all.

    DIR/rows/TABLE-NNNNNNNNNN.seg     the row log (``pipeline.rowlog.log``)
    DIR/position/                     one checkpoint (``pipeline.rowlog.checkpoint``): names the segments that hold the rows of a cut,
                                      and says which cut that is, and where the stream goes on behind it
    DIR/.lock                         held by the replica

The walk: ``open`` reads the position; ``begin`` opens the log with what that names; ``put`` and ``forget`` write; ``commit`` ends segments,
syncs them and names them in a new checkpoint. A crash at any call leaves the position before, with its rows, or the one after. Acknowledged
is the position that ``commit`` returned; what was put behind it is forgotten by a crash, and comes again from the stream.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.files import DirectoryLock, Files, RealFiles
from pipeline.replica.carried import Carried
from pipeline.replica.cuts import Applied, Cut, StagedRows
from pipeline.replica.rowmap import Int64s
from pipeline.replica.targets.log_layout import HeldRows, log_spec, pack, unpack
from pipeline.replica.targets.positions import decode_applied, encode_applied
from pipeline.rowlog import CheckpointReader, CheckpointWriter, NoCheckpoint
from pipeline.rowlog.log import Beginning, Held, RowLog, RowLogOptions, SavedRows, SavedTable
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.rowlog.log.row_reads import RowReads
from pipeline.rows.index import IdIndex
from pipeline.rows.spec import TableSpec

READ_DEPTH = 32
LOAD_ROWS = 1 << 14
MOST_SMALL_SEGMENTS = 64
"""Of a table: beyond that, those that are far from full are merged. Each is a file that stays open."""
HEADER, DENSE = "header", "dense.npz"


@dataclass(frozen=True, slots=True)
class StoreDisk:
    """What the store does its file work with."""

    files: Files
    reads: Callable[[], RowReads]
    lock: Callable[[str], AbstractContextManager[object]] = DirectoryLock


REAL_DISK = StoreDisk(RealFiles(), partial(RealReads, READ_DEPTH))


class LogStore:
    """See the module docstring. One thread writes; any number read."""

    def __init__(self, directory: str, disk: StoreDisk = REAL_DISK, options: RowLogOptions | None = None) -> None:
        """Touches nothing yet."""
        self.directory = directory
        self._disk, self._options = disk, options or RowLogOptions()
        self._log: RowLog | None = None
        self._layouts: dict[str, TableSpec] = {}
        self._saved: SavedRows | None = None
        self._held: Held | None = None
        self._applied, self._dense = Applied(), dict[str, npt.NDArray[Any]]()
        self._serial = 0
        self._dirty = False
        self._open = ExitStack()

    def open(self, wanted: frozenset[str] | None) -> tuple[Applied, Mapping[str, npt.NDArray[Any]]] | None:
        """Take the directory, and read the position and the dense weights at it; None where there is none yet.

        ``wanted``: the tables that are held, None for all. Raises LockedDirectory, OtherTables, CheckpointCorrupt, LogCorrupt, OtherFormat.
        """
        files = self._disk.files
        files.make_dirs(self.directory)
        self._wanted = wanted
        self._open.enter_context(self._disk.lock(self.directory))
        try:
            reader = CheckpointReader.newest(files, f"{self.directory}/position", self._disk.reads)
        except NoCheckpoint:
            return None
        self._saved = reader.saved
        places = reader.manifest.extra["places"]
        headers = [reader.blob(f"{HEADER}-{number}") for number in range(len(places))]
        self._applied, self._serial = decode_applied(self.directory, reader.manifest.extra, headers, wanted)
        with np.load(io.BytesIO(reader.blob(DENSE)), allow_pickle=False) as arrays:
            self._dense = {name: arrays[name] for name in arrays.files}
        return self._applied, self._dense

    def begin(self, tables: Mapping[str, tuple[TableSpec, Carried]]) -> None:
        """Open the log for these tables; with more of them than before, again."""
        layouts = {name: log_spec(*table) for name, table in tables.items()}
        if self._log is not None and layouts == self._layouts:
            return
        self._layouts = layouts
        if self._log is not None:
            self.commit()
            self._log.close()
        beginning = Beginning()
        if self._saved is not None:
            nothing = SavedTable((), 0, 1)
            saved = SavedRows({name: self._saved.tables.get(name, nothing) for name in layouts})
            beginning = Beginning(saved, [saved])
        directory = f"{self.directory}/rows"
        self._log = RowLog([directory], self._disk.files, self._disk.reads, self._options, self._disk.lock, beginning)
        self._log.open(list(layouts.values()))
        self._held = self._log.held[0] if self._log.held else None

    def begin_cut(self) -> None:
        """What is put from now on belongs to the next cut."""
        self._serial += 1
        self._dirty = True

    def apply(self, cut: Cut) -> None:
        """Write a whole cut."""
        self.begin_cut()
        named = {name: IdIndex() for name in self._layouts}
        for part in cut.parts():
            for chunk in part.chunks(LOAD_ROWS):
                self.put(chunk)
                if cut.snapshot:
                    named[part.table].insert(chunk.ids_n)
            self.forget(part.table, part.tombstones_m)
        if cut.snapshot:
            for name, some in named.items():
                held_n = self.ids(name)
                self.forget(name, held_n[some.find(held_n) < 0])

    def put(self, rows: StagedRows) -> None:
        spec = self._layouts[rows.table]
        rows_nb = pack(spec.layout, rows.weights_nd, rows.versions_n, rows.extra_nx)
        count = len(rows.ids_n)
        self.log.put(rows.table, rows.ids_n, rows_nb, np.full(count, self._serial, dtype=np.int64))

    def forget(self, table: str, ids_n: Int64s) -> None:
        """Absent ids are passed over."""
        if len(ids_n):
            self.log.delete(table, ids_n)

    def take(self, cut: Cut) -> None:
        """The cut was written: the next ``commit`` makes it durable."""
        self._applied = cut.applied
        if cut.dense is not None:
            self._dense = dict(cut.dense)

    def find(self, table: str, ids_n: Int64s) -> tuple[HeldRows, npt.NDArray[np.bool_]]:
        """Rows in the order asked, and which of them are held."""
        rows, found_n = self.log.get(table, ids_n)
        return unpack(self._layouts[table].layout, ids_n, rows.rows_nb), found_n

    def ids(self, table: str) -> Int64s:
        return self.log.table(table).ids()

    def count(self, table: str) -> int:
        return self.log.table(table).index.count

    def rows(self, table: str) -> Iterator[HeldRows]:
        """All rows of a table, some at a time."""
        ids_n = self.ids(table)
        for start in range(0, len(ids_n), LOAD_ROWS):
            yield self.find(table, ids_n[start : start + LOAD_ROWS])[0]

    def commit(self) -> Applied:
        """Make what was taken durable; returns the position, which then is. Raises LogFailed, OSError."""
        if not self._dirty or self._log is None:
            return self._applied
        self._log.merge(MOST_SMALL_SEGMENTS)
        mark = self._log.mark()
        try:
            saved, held = mark.seal()
        except BaseException:
            mark.abandon()
            raise
        writer = CheckpointWriter(self._disk.files, f"{self.directory}/position")
        position = self._applied.position
        writer.begin(self._applied.step, position.generation, encode_applied(self._applied, self._serial, self._wanted))
        for name, spec in self._layouts.items():
            writer.add_table(spec, saved.tables[name])
        for number, place in enumerate(self._applied.places):
            writer.add_blob(f"{HEADER}-{number}", place.header)
        writer.add_blob(DENSE, _npz(self._dense))
        writer.commit()
        self._saved, self._dirty = saved, False
        before, self._held = self._held, held
        if before is not None:
            before.release()
        return self._applied

    def stats(self) -> Mapping[str, Any]:
        """Figures of the log; none before ``begin``."""
        return {} if self._log is None else self._log.stats()

    def close(self) -> None:
        """What was not committed is gone. May be called twice."""
        with self._open:
            if self._log is not None:
                self._log.close()
        self._open = ExitStack()

    @property
    def log(self) -> RowLog:
        assert self._log is not None, "begin() comes first"
        return self._log


def _npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
