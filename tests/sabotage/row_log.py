"""Small sabotages of the row log: each removes one protection, and the checks of ``test_row_log`` have to catch every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from pipeline.rowlog.log import compactor, garbage, row_log, table_moves
from pipeline.rowlog.log.accounts import Accounts
from pipeline.rowlog.log.compactor import Compactor
from pipeline.rowlog.log.log_table import LogTable
from pipeline.rowlog.log.records import ROW_BITS, Records
from pipeline.rowlog.log.segment import Kind, OpenSegment
from pipeline.rowlog.log.segment_format import encode_footer
from pipeline.rowlog.log.table_mark import TableMark
from pipeline.rowlog.log.write_behind import WriteBehind
from pipeline.rowlog.places import PlaceIndex
from pipeline.rowlog.places_recovery import Recovery


@contextmanager
def remove_a_file_while_it_is_read() -> Iterator[None]:
    """Nobody waits for those who are counted in."""

    with patch.object(Accounts, "_is_left", lambda *_: True):
        yield


@contextmanager
def forget_to_count_a_reader_in() -> Iterator[None]:
    take = LogTable._take_from_memory

    def uncounted(self: LogTable, *arguments: Any) -> Any:
        wanted = take(self, *arguments)
        for segment in wanted.segments if wanted is not None else ():
            segment.users -= 1
        return wanted

    with (
        patch.object(LogTable, "_take_from_memory", uncounted),
        patch.object(LogTable, "_done_reading", lambda *_: None),
    ):
        yield


@contextmanager
def move_a_row_that_changed_meanwhile() -> Iterator[None]:
    """Compaction does not look whether the row is still where it found it."""
    move, inside = table_moves.move, []

    def careless(table: LogTable, segment: Any, ids_n: Any, rows_nb: Any, versions_n: Any, from_n: Any) -> int:
        inside.append(from_n)
        try:
            return move(table, segment, ids_n, rows_nb, versions_n, from_n)
        finally:
            inside.clear()

    find = PlaceIndex.find

    def believe(self: PlaceIndex, ids_n: Any) -> Any:
        found_n = find(self, ids_n)
        return np.where(found_n >= 0, inside[0], -1) if inside and len(inside[0]) == len(ids_n) else found_n

    def put(self: PlaceIndex, ids_n: Any, places_n: Any, _from_n: Any) -> Any:
        self.put(ids_n, places_n)
        return np.ones(len(ids_n), dtype=np.bool_)

    with (
        patch.object(compactor, "move", careless),
        patch.object(PlaceIndex, "find", believe),
        patch.object(PlaceIndex, "move", put),
    ):
        yield


@contextmanager
def unpack_without_a_look_at_the_place() -> Iterator[None]:
    """Bytes are taken for the record that was asked for."""

    def careless(self: Records, data: Any, offsets_n: Any, _places: Any, _ids: Any, into_n: Any, rows: Any) -> int:
        for offset, into in zip(offsets_n.tolist(), into_n.tolist(), strict=True):
            record = data[offset : offset + self.stride]
            rows.rows_nb[into] = record[: self.row_bytes]
            rows.versions_n[into] = record[-16:-8].copy().view(np.int64)[0]
        return -1

    with patch.object(Records, "unpack", careless):
        yield


@contextmanager
def drop_an_extent_from_memory_before_it_is_written() -> Iterator[None]:
    append = OpenSegment.append

    def hasty(self: OpenSegment, *arguments: Any) -> Any:
        places_n, ready = append(self, *arguments)
        if ready is not None:
            self.waiting.remove(ready)
        return places_n, ready

    def written(self: LogTable, filling: Any, _extent: Any) -> None:
        with self.lock:
            if not filling.waiting:
                self._unwritten.pop(filling.segment.number, None)

    with patch.object(OpenSegment, "append", hasty), patch.object(LogTable, "written", written):
        yield


@contextmanager
def leave_out_what_forgets_an_id() -> Iterator[None]:
    with patch.object(garbage, "is_forgetting", lambda *_: False):
        yield


@contextmanager
def let_puts_go_on_without_space() -> Iterator[None]:
    with patch.object(Compactor, "wait_for_space", lambda _self, _table: None), patch.object(compactor, "TRIGGER", 1e9):
        yield


@contextmanager
def flush_without_waiting() -> Iterator[None]:
    with patch.object(WriteBehind, "drain", WriteBehind.check):
        yield


@contextmanager
def leave_out_the_last_footer() -> Iterator[None]:
    """Of the newest record of each segment, the footer does not tell."""
    encode = encode_footer

    def short(ids_n: Any, versions_n: Any, offset: int) -> tuple[bytes, str]:
        return encode(np.append(ids_n[:-1], ids_n[:1]), np.append(versions_n[:-1], versions_n[:1]), offset)

    with patch.object(row_log, "encode_footer", short):
        yield


@contextmanager
def let_go_of_what_a_checkpoint_names() -> Iterator[None]:
    """Segments are named and not held."""

    def name(self: TableMark, segment: Any) -> None:
        self.named.append(segment)

    def release(self: LogTable, _segments: Any) -> None:
        assert self

    with patch.object(TableMark, "name", name), patch.object(LogTable, "release", release):
        yield


@contextmanager
def mark_without_ending_segments() -> Iterator[None]:
    """What is put after the mark goes into the same segments as what was put before."""
    init, end_all = TableMark.__init__, LogTable.end_all

    def careless(self: TableMark, table: LogTable) -> None:
        with patch.object(LogTable, "end_all", lambda _self: None):
            init(self, table)

    def end(self: TableMark) -> Any:
        with self._table.lock:
            end_all(self._table)
            self._table.mark = None
            return self.named

    with patch.object(TableMark, "__init__", careless), patch.object(TableMark, "end", end):
        yield


@contextmanager
def miss_what_was_put_since_the_mark() -> Iterator[None]:
    with patch.object(TableMark, "put_since", lambda _self, _footer_ids: iter(())):
        yield


@contextmanager
def save_old_rows_over_newer_ones() -> Iterator[None]:
    """A saved row is the newest, whatever was put since the mark."""

    def save(self: TableMark, ids_n: Any, rows_nb: Any, versions_n: Any) -> None:
        table = self._table
        with table.lock:
            places_n = table.append(ids_n, rows_nb, versions_n, Kind.SAVED)
            table.accounts.leave(table.index.put(ids_n, places_n))

    with patch.object(TableMark, "save", save):
        yield


@contextmanager
def take_whatever_came_since_the_mark_for_newer() -> Iterator[None]:
    """Rows that compaction moved, and old rows that were put, too."""

    def newer(self: TableMark, places_n: Any) -> Any:
        return np.where(places_n >= self.number << ROW_BITS, np.int64(1) << 62, 0)

    with patch.object(TableMark, "_versions_since", newer):
        yield


@contextmanager
def recover_by_place_and_not_by_version() -> Iterator[None]:
    """Of two records of an id, the one in the later segment is taken for the newest."""

    def enter(self: Recovery, ids_n: Any, places_n: Any) -> Any:
        index = object.__new__(PlaceIndex)
        index.directory = self._directory
        return index.put(ids_n, places_n)

    with patch.object(Recovery, "enter", enter):
        yield


SABOTAGES: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    sabotage.__name__: sabotage
    for sabotage in (
        remove_a_file_while_it_is_read,
        forget_to_count_a_reader_in,
        move_a_row_that_changed_meanwhile,
        unpack_without_a_look_at_the_place,
        drop_an_extent_from_memory_before_it_is_written,
        leave_out_what_forgets_an_id,
        let_puts_go_on_without_space,
        flush_without_waiting,
        leave_out_the_last_footer,
        let_go_of_what_a_checkpoint_names,
        mark_without_ending_segments,
        miss_what_was_put_since_the_mark,
        save_old_rows_over_newer_ones,
        take_whatever_came_since_the_mark_for_newer,
        recover_by_place_and_not_by_version,
    )
}
