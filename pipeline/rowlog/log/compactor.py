"""The compactor: moves the rows that are left of a segment to a new one, so that the old file can go.

Rules.

1. It takes sealed segments, in the order of ``garbage``, while a table holds more records than ``TRIGGER`` of what is allowed
   above those that are live. Segments that only checkpoints name do not count: they were within the bound when they were named.
2. It moves no more than its share of what is put, so that it does not take the disk from training; but whoever puts
   while a table is at its bound waits until there is space again.
3. What it moves goes into segments of its own: rows that stay, stay together.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from pipeline.files import Files
from pipeline.rowlog.errors import RowLogError
from pipeline.rowlog.log import garbage
from pipeline.rowlog.log.errors import LogCorrupt
from pipeline.rowlog.log.log_table import LogTable
from pipeline.rowlog.log.options import RowLogOptions
from pipeline.rowlog.log.records import ROW_BITS, Rows
from pipeline.rowlog.log.segment import Segment
from pipeline.rowlog.log.segment_format import read_footer, read_records
from pipeline.rowlog.log.table_moves import emptied, move, needed_at
from pipeline.rowlog.log.worker import Worker
from pipeline.rowlog.log.write_behind import WriteBehind

TRIGGER: Final = 0.7
PIECE_BYTES: Final = 1 << 20
"""Read and moved at once: the lock is held for no more."""
BURST_BYTES: Final = 16 << 20
FAR_FROM_FULL: Final = 4
"""A segment that holds less than one part of so many."""


class Compactor(Worker):
    """One thread, which stops behind the piece that is being moved; ``compact`` does the same on the caller's."""

    def __init__(
        self, tables: Mapping[str, LogTable], files: Files, writer: WriteBehind, options: RowLogOptions
    ) -> None:
        super().__init__("rowlog-compact")
        self._tables, self._files, self._writer, self._options = tables, files, writer, options
        self._one_at_a_time = threading.Lock()
        self._budget_bytes = float(BURST_BYTES)
        self._poked = False
        self.moved_rows = 0
        self.waited_s = 0.0

    def told_of(self, put_bytes: int) -> None:
        """So much was put, or a segment was sealed."""
        with self._changed:
            self._budget_bytes = min(
                self._budget_bytes + put_bytes * self._options.compaction_share, float(BURST_BYTES)
            )
            self._poked = True
            self._changed.notify_all()

    def wait_for_space(self, table: LogTable) -> None:
        """Block while ``table`` is at its bound and compaction can do something about it. Raises LogFailed."""
        if self._find(table, 1.0) is None:
            return
        began = time.monotonic()
        try:
            self._compact(table, 1.0)
        except (OSError, RowLogError) as error:
            self._writer.fail(error)
            self._writer.check()
        finally:
            self.waited_s += time.monotonic() - began

    def compact(self) -> None:
        """Compact, on this thread, until there is no garbage but what is never worth moving. Raises LogCorrupt, LogFailed."""
        self._writer.drain()
        for table in self._tables.values():
            self._compact(table, 0.0)

    def merge(self, most: int) -> None:
        """Where a table has more than ``most`` segments that are far from full, move what is left of these together, on this thread: each
        is a file that stays open. Raises LogCorrupt, LogFailed.
        """
        for table in self._tables.values():
            small = [
                one for one in table.all_segments() if one.sealed and FAR_FROM_FULL * one.num_rows < table.capacity
            ]
            if len(small) > most:
                for segment in small:
                    if segment.number < table.movable_below:
                        self._move_rows(table, segment)
                self._writer.drain()

    def _compact(self, table: LogTable, share: float) -> None:
        """Until the table uses no more than ``share`` of the garbage that is allowed, or nothing can be done about it."""
        while not self._closing:
            segment = self._find(table, share)
            if segment is not None:
                self._move_rows(table, segment)
            elif self._has_much(table, share) and table.is_held_up():
                table.rotate()
            else:
                break
            self._writer.drain()

    def _work(self) -> None:
        try:
            while self._wait_for_work():
                for table in self._tables.values():
                    segment = self._find(table, TRIGGER)
                    if segment is not None:
                        self._move_rows(table, segment)
                        self._poked = True
        except BaseException as error:
            self._writer.fail(error)

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or (self._poked and self._budget_bytes > 0))
            self._poked = False
            return not self._closing

    def _has_much(self, table: LogTable, share: float) -> bool:
        with table.lock:
            live = table.index.count
            return table.num_rows - live > (self._options.max_space - 1) * live * share + table.slack_rows

    def _find(self, table: LogTable, share: float) -> Segment | None:
        """What to take of a table with more garbage than ``share`` of what is allowed; None if it has less, or none can go."""
        return garbage.pick(table.all_segments(), table.movable_below) if self._has_much(table, share) else None

    def _move_rows(self, table: LogTable, segment: Segment) -> None:
        with self._one_at_a_time:
            if not table.count_in(segment):
                return
            try:
                ids_n, versions_n = read_footer(self._files, segment.as_sealed())
                records = table.records
                per_piece = max(1, PIECE_BYTES // records.block) * records.per_block
                for first in range(0, segment.num_rows, per_piece):
                    rows_n = np.arange(first, min(first + per_piece, segment.num_rows), dtype=np.int64)
                    rows_n = rows_n[needed_at(table, segment, ids_n[rows_n], rows_n, versions_n[rows_n])]
                    if self._closing:
                        return
                    if len(rows_n):
                        self._move_piece(table, segment, first, per_piece, rows_n, ids_n[rows_n])
                if not emptied(table, segment):
                    raise LogCorrupt(segment.path, segment.size, "the footer does not name all records of the segment")
            finally:
                table.count_out(segment)

    def _move_piece(
        self, table: LogTable, segment: Segment, first: int, per_piece: int, rows_n: Any, ids_n: Any
    ) -> None:
        records = table.records
        count = min(per_piece, segment.num_rows - first)
        data, start = read_records(self._files, records, segment.path, first, count)
        places_n = rows_n | segment.number << ROW_BITS
        rows = Rows(np.empty((len(rows_n), records.row_bytes), np.uint8), np.empty(len(rows_n), np.int64))
        into_n = np.arange(len(rows_n), dtype=np.int64)
        wrong = records.unpack(data, records.offsets(rows_n) - start, places_n, ids_n, into_n, rows)
        table.check_unpacked(wrong, ids_n, places_n)
        self._writer.wait_for_room()
        moved = move(table, segment, ids_n, rows.rows_nb, rows.versions_n, places_n)
        self.moved_rows += moved
        with self._changed:
            self._budget_bytes -= moved * records.stride
