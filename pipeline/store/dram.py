"""The DRAM tier: rows in host memory, table by table (``dram_table``) or of many tables at once (``dram_kernels``).

One lock per table is held while rows are copied, so a reader sees a row whole, as it was before a ``put`` or as it is after.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import numpy as np

from cuda.backend import forbid_event_loop
from cuda.plan import Int32s, RowPlaces
from pipeline.rows.spec import TableSpec
from pipeline.store import dram_kernels as kernels
from pipeline.store.dram_table import CHUNK_SHIFT, DramTable
from pipeline.store.errors import TierFull, UnknownTable
from pipeline.store.row_blocks import WORD_BYTES, aligned_rows
from pipeline.store.tier import Bools, Int64s, RowBytes, TierRows

INDEX_BYTES: Final = 24
"""What the id index may take per row; counted as if it did."""


def dram_bytes_for(spec: TableSpec, rows: int) -> int:
    """What the DRAM tier counts for so many rows of a table."""
    return rows * (spec.layout.row_bytes + WORD_BYTES + INDEX_BYTES)


class DramTier:
    """Implements ``Tier`` in host memory. ``max_bytes`` bounds rows, versions and index; None: no bound."""

    name = "dram"

    def __init__(self, max_bytes: int | None = None) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._budget = threading.Lock()
        self._tables: dict[str, DramTable] = {}
        self._described_tf = np.empty((0, kernels.FIELDS), dtype=np.int64)

    def open(self, specs: Sequence[TableSpec]) -> None:
        self._described_tf = np.zeros((len(specs), kernels.FIELDS), dtype=np.int64)
        self._tables = {
            spec.name: DramTable(spec, number, self._described_tf[number]) for number, spec in enumerate(specs)
        }
        self.held_bytes = 0

    def get(self, table: str, ids_n: Int64s) -> TierRows:
        forbid_event_loop("DramTier.get")
        held, ids_n = self._table(table), np.ascontiguousarray(ids_n, dtype=np.int64)
        rows_nb = np.empty((ids_n.shape[0], held.row_bytes), dtype=np.uint8)
        versions_n = np.empty(ids_n.shape[0], dtype=np.int64)
        tables_n, at = _all_of(held, ids_n), _places_of(rows_nb, versions_n)
        with held.lock:
            places_n, absent = self._find(tables_n, ids_n)
            kernels.move_rows(self._described_tf, CHUNK_SHIFT, tables_n, places_n, *at, False)
        found_n = places_n >= 0
        if absent:
            rows_nb[~found_n], versions_n[~found_n] = 0, 0
        return TierRows(rows_nb, versions_n, found_n)

    def put(self, table: str, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s) -> None:
        """See ``Tier.put``. Raises TierFull, and takes none of these rows, when the new ones do not fit."""
        forbid_event_loop("DramTier.put")
        held, ids_n = self._table(table), np.ascontiguousarray(ids_n, dtype=np.int64)
        rows_nb, versions_n = aligned_rows(rows_nb), np.ascontiguousarray(versions_n, dtype=np.int64)
        assert rows_nb.shape[1] >= held.row_bytes
        assert rows_nb.shape[0] == versions_n.shape[0] == ids_n.shape[0]
        self._move_in(_all_of(held, ids_n), ids_n, _places_of(rows_nb, versions_n))

    def get_rows(self, tables_n: Int32s, ids_n: Int64s, at: RowPlaces, /) -> Bools:
        """See ``MovesRows``."""
        forbid_event_loop("DramTier.get_rows")
        with self._locked(tables_n):
            places_n = self._find(tables_n, ids_n)[0]
            kernels.move_rows(self._described_tf, CHUNK_SHIFT, tables_n, places_n, *at, False)
        return places_n >= 0

    def put_rows(self, tables_n: Int32s, ids_n: Int64s, at: RowPlaces, /) -> None:
        """See ``MovesRows``. Raises TierFull as ``put`` does."""
        forbid_event_loop("DramTier.put_rows")
        self._move_in(tables_n, ids_n, at)

    def _move_in(self, tables_n: Int32s, ids_n: Int64s, at: RowPlaces) -> None:
        """Copy rows from where they lie. Raises TierFull."""
        with self._locked(tables_n) as tables:
            places_n, absent = self._find(tables_n, ids_n)
            if absent:
                self._make_places(tables, tables_n, ids_n, places_n)
            kernels.move_rows(self._described_tf, CHUNK_SHIFT, tables_n, places_n, *at, True)

    @contextmanager
    def _locked(self, tables_n: Int32s) -> Iterator[dict[int, DramTable]]:
        """Hold the locks of these tables, which are given by number."""
        every = list(self._tables.values())
        numbers = np.flatnonzero(np.bincount(tables_n, minlength=len(every))).tolist()
        with ExitStack() as held:
            for number in numbers:  # in order: two calls never wait for each other
                held.enter_context(every[number].lock)
            yield {number: every[number] for number in numbers}

    def _find(self, tables_n: Int32s, ids_n: Int64s) -> tuple[Int64s, int]:
        """Places, -1 where absent, and how many are. Under the locks."""
        places_n = np.empty(ids_n.shape[0], dtype=np.int64)
        return places_n, int(kernels.find_places(self._described_tf, tables_n, ids_n, places_n))

    def _make_places(self, tables: dict[int, DramTable], tables_n: Int32s, ids_n: Int64s, places_n: Int64s) -> None:
        """Give absent rows their places, all or none. Under the locks."""
        absent_n = np.flatnonzero(places_n < 0)
        new = {number: absent_n[tables_n[absent_n] == number] for number in np.unique(tables_n[absent_n]).tolist()}
        self._count({tables[number]: len(rows_n) for number, rows_n in new.items()})
        for number, rows_n in new.items():
            places_n[rows_n] = tables[number].insert(ids_n[rows_n])

    def delete(self, table: str, ids_n: Int64s) -> None:
        forbid_event_loop("DramTier.delete")
        held = self._table(table)
        with held.lock:
            places_n = held.index.remove(np.unique(ids_n))
            self._count({held: -int(np.count_nonzero(places_n >= 0))})

    def holds(self, table: str, ids_n: Int64s) -> Bools:
        forbid_event_loop("DramTier.holds")
        held = self._table(table)
        with held.lock:
            return held.index.find(ids_n) >= 0

    def ids(self, table: str) -> Int64s:
        forbid_event_loop("DramTier.ids")
        held = self._table(table)
        with held.lock:
            return held.index.ids()

    def unsaved(self, table: str, since: int, /) -> Int64s:
        """See ``ListsUnsaved``: nothing of what is here is anywhere else, so all that changed after version ``since``."""
        forbid_event_loop("DramTier.unsaved")
        held = self._table(table)
        with held.lock:
            (ids_n, places_n), versions = held.index.items(), held.versions_later()
        # Without the lock: a step may wait for it, and there may be many rows. One that is put meanwhile has a higher version still.
        return ids_n[versions(places_n) > since]

    def count(self, table: str) -> int:
        return self._table(table).index.count

    def flush(self) -> None:
        """Memory has nothing to make durable."""

    def close(self) -> None:
        self._tables = {}
        self.held_bytes = 0

    def _table(self, table: str) -> DramTable:
        held = self._tables.get(table)
        if held is None:
            raise UnknownTable(table, list(self._tables))
        return held

    def _count(self, rows: Mapping[DramTable, int]) -> None:
        """Add so many rows of each table to what is held, or raise TierFull and add none."""
        wanted = sum(count * (held.stride_bytes + INDEX_BYTES) for held, count in rows.items())
        with self._budget:
            if self.max_bytes is not None and wanted > 0 and self.held_bytes + wanted > self.max_bytes:
                names = ", ".join(held.spec.name for held in rows)
                raise TierFull(self.name, names, sum(rows.values()), self.held_bytes, self.max_bytes, wanted)
            self.held_bytes += wanted


def _all_of(held: DramTable, ids_n: Int64s) -> Int32s:
    """The number of one table for each id."""
    return np.full(ids_n.shape[0], held.number, dtype=np.int32)


def _places_of(rows_nb: RowBytes, versions_n: Int64s) -> RowPlaces:
    """Of rows in an array, on a word boundary, and of their versions."""
    assert rows_nb.ctypes.data % WORD_BYTES == rows_nb.strides[0] % WORD_BYTES == 0
    rows_n = np.arange(rows_nb.shape[0], dtype=np.int64)
    return RowPlaces(
        rows_nb.ctypes.data + rows_nb.strides[0] * rows_n, versions_n.ctypes.data + versions_n.strides[0] * rows_n
    )
