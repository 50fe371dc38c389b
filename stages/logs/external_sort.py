"""Sorts a log that does not fit in memory: sorted runs on disk, merged with a bounded number of rows of each in memory.

Tables carry two more columns, the key and the row's number in the log; sorting by both keeps the order of equal keys.
The merge takes no row at a time: all rows up to the least of the runs' last loaded rows are final, so they are sorted
together and go out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

KEY, ROW = "__key", "__row"
FAN_IN = 32
"""Runs merged at once; more are merged in several passes."""
ORDER = [(KEY, "ascending"), (ROW, "ascending")]


def _sorted(tables: list[pa.Table]) -> pa.Table:
    table = pa.concat_tables(tables)
    return table.take(pc.sort_indices(table, sort_keys=ORDER))


class _Run:
    """A sorted run on disk; ``head`` is the part of it that is loaded and not yet out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = pa.OSFile(str(path))
        self._reader = pa.ipc.open_file(self._file)
        self._next = 0
        self.head: pa.Table | None = None

    def load(self) -> bool:
        """Fill an empty head; False when the run has ended, and is gone."""
        while self.head is None or self.head.num_rows == 0:
            if self._next == self._reader.num_record_batches:
                self._file.close()
                self._path.unlink()
                return False
            self.head = pa.Table.from_batches([self._reader.get_batch(self._next)])
            self._next += 1
        return True

    def last(self) -> tuple[Any, int]:
        assert self.head is not None
        end = self.head.num_rows - 1
        return self.head[KEY][end].as_py(), self.head[ROW][end].as_py()

    def take_until(self, key: Any, row: int) -> pa.Table:
        """Remove and return the rows up to (key, row)."""
        assert self.head is not None
        keys, bound = self.head[KEY], pa.scalar(key, self.head[KEY].type)
        tied = pc.and_(pc.equal(keys, bound), pc.less_equal(self.head[ROW], row))
        count = pc.sum(pc.or_(pc.less(keys, bound), tied)).as_py() or 0
        taken, self.head = self.head.slice(0, count), self.head.slice(count)
        return taken


class ExternalSorter:
    """Add tables that hold ``KEY`` and ``ROW`` (unique), then iterate ``sorted_tables`` once. Files live in
    ``directory``."""

    def __init__(self, directory: Path, memory_bytes: int) -> None:
        self._directory, self._memory_bytes = directory, memory_bytes
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._runs: list[Path] = []
        self._number = 0

    def add(self, table: pa.Table) -> None:
        """Take a table. Writes a run when a quarter of the memory is full: a sort needs the rows twice, and the
        order."""
        self._pending.append(table)
        self._pending_bytes += table.nbytes
        if self._pending_bytes >= self._memory_bytes // 4:
            self._write_pending()

    def _write_pending(self) -> None:
        if self._pending:
            tables, self._pending, self._pending_bytes = self._pending, [], 0
            self._runs.append(self._write_run(iter([_sorted(tables)])))

    def _write_run(self, tables: Iterator[pa.Table]) -> Path:
        self._number += 1
        path = self._directory / f"run-{self._number:06d}.arrow"
        writer = None
        for table in tables:
            writer = writer or pa.ipc.new_file(
                str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")
            )
            writer.write_table(table, max_chunksize=self._chunk_rows(table))
        assert writer is not None
        writer.close()
        return path

    def _chunk_rows(self, table: pa.Table) -> int:
        """Rows of which all runs of a merge, and their sorted copy, fit in memory together."""
        chunk_bytes = self._memory_bytes // (4 * FAN_IN)
        return max(1, int(table.num_rows) * chunk_bytes // max(int(table.nbytes), 1))

    def sorted_tables(self) -> Iterator[pa.Table]:
        """All rows, in order, piece by piece."""
        if not self._runs:
            if self._pending:
                yield _sorted(self._pending)
            return
        self._write_pending()
        while len(self._runs) > FAN_IN:
            group, self._runs = self._runs[:FAN_IN], self._runs[FAN_IN:]
            self._runs.append(self._write_run(self._merged(group)))
        yield from self._merged(self._runs)

    @staticmethod
    def _merged(paths: list[Path]) -> Iterator[pa.Table]:
        runs = [_Run(path) for path in paths]
        while runs := [run for run in runs if run.load()]:
            key, row = min(run.last() for run in runs)
            yield _sorted([run.take_until(key, row) for run in runs])
