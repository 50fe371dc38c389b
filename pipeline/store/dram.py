"""The DRAM tier: each table's rows in chunks of memory, found by an id index.

Chunks never move: growing copies no row. A row and its version lie side by side. One lock per table is held while
rows are copied, so a reader sees a row whole, as it was before a ``put`` or as it is after.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from cuda.backend import forbid_event_loop
from cuda.host.memory import allocate
from pipeline.rows.index import IdIndex
from pipeline.rows.spec import TableSpec
from pipeline.store.errors import TierFull, UnknownTable
from pipeline.store.row_blocks import WORD_BYTES, aligned_rows, fetch, store
from pipeline.store.tier import Bools, Int64s, RowBytes, TierRows

CHUNK_SHIFT: Final = 16
INDEX_BYTES: Final = 24
"""What the id index may take per row; counted as if it did."""


def dram_bytes_for(spec: TableSpec, rows: int) -> int:
    """What the DRAM tier counts for so many rows of a table."""
    return rows * (spec.layout.row_bytes + WORD_BYTES + INDEX_BYTES)


class _Table:
    """One table's rows. Callers hold ``lock``."""

    def __init__(self, spec: TableSpec) -> None:
        self.spec, self.lock, self.index = spec, threading.Lock(), IdIndex()
        self.row_bytes = spec.layout.row_bytes
        self.stride_bytes = self.row_bytes + WORD_BYTES
        self._chunks: list[RowBytes] = []
        self._bases_c = np.empty(0, dtype=np.int64)

    def grow_to(self, rows: int) -> None:
        while len(self._chunks) << CHUNK_SHIFT < rows:
            self._chunks.append(allocate(1 << CHUNK_SHIFT, self.stride_bytes))
            self._bases_c = np.array([chunk.ctypes.data for chunk in self._chunks], dtype=np.int64)

    def fetch(self, places_n: Int64s) -> tuple[RowBytes, Int64s]:
        rows_nb = np.empty((places_n.shape[0], self.row_bytes), dtype=np.uint8)
        versions_n = np.empty(places_n.shape[0], dtype=np.int64)
        fetch(places_n, self._bases_c, CHUNK_SHIFT, self.stride_bytes, rows_nb, versions_n)
        return rows_nb, versions_n

    def versions_later(self) -> Callable[[Int64s], Int64s]:
        """Versions by place, as they are when they are asked for; that needs no lock. Chunks never move, and a version is one word."""
        words = [chunk.view(np.int64)[:, -1] for chunk in self._chunks]

        def versions(places_n: Int64s) -> Int64s:
            versions_n = np.empty(places_n.shape[0], dtype=np.int64)
            starts = np.searchsorted(places_n, np.arange(len(words) + 1) << CHUNK_SHIFT).tolist()
            for number, (start, stop) in enumerate(pairwise(starts)):
                versions_n[start:stop] = words[number][places_n[start:stop] - (number << CHUNK_SHIFT)]
            return versions_n

        return versions

    def store(self, places_n: Int64s, rows_nb: RowBytes, versions_n: Int64s) -> None:
        self.grow_to(int(places_n.max()) + 1)
        store(places_n, self._bases_c, CHUNK_SHIFT, self.stride_bytes, rows_nb, self.row_bytes, versions_n)


class DramTier:
    """Implements ``Tier`` in host memory. ``max_bytes`` bounds rows, versions and index; None: no bound."""

    name = "dram"

    def __init__(self, max_bytes: int | None = None) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._budget = threading.Lock()
        self._tables: dict[str, _Table] = {}

    def open(self, specs: Sequence[TableSpec]) -> None:
        self._tables = {spec.name: _Table(spec) for spec in specs}
        self.held_bytes = 0

    def get(self, table: str, ids_n: Int64s) -> TierRows:
        forbid_event_loop("DramTier.get")
        held, ids_n = self._table(table), np.ascontiguousarray(ids_n, dtype=np.int64)
        with held.lock:
            places_n = held.index.find(ids_n)
            rows_nb, versions_n = held.fetch(places_n)
        return TierRows(rows_nb, versions_n, places_n >= 0)

    def put(self, table: str, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s) -> None:
        """See ``Tier.put``. Raises TierFull, and takes none of these rows, when the new ones do not fit."""
        forbid_event_loop("DramTier.put")
        held, ids_n = self._table(table), np.ascontiguousarray(ids_n, dtype=np.int64)
        if not ids_n.shape[0]:
            return
        rows_nb, versions_n = aligned_rows(rows_nb), np.ascontiguousarray(versions_n, dtype=np.int64)
        assert rows_nb.shape[1] >= held.row_bytes
        assert rows_nb.shape[0] == versions_n.shape[0] == ids_n.shape[0]
        with held.lock:
            if self.max_bytes is not None:  # otherwise one look-up does
                self._count(held, int(np.count_nonzero(held.index.find(ids_n) < 0)))
            before = held.index.count
            held.store(held.index.insert(ids_n), rows_nb, versions_n)
            if self.max_bytes is None:
                self._count(held, held.index.count - before)

    def delete(self, table: str, ids_n: Int64s) -> None:
        forbid_event_loop("DramTier.delete")
        held = self._table(table)
        with held.lock:
            places_n = held.index.remove(np.unique(ids_n))
            self._count(held, -int(np.count_nonzero(places_n >= 0)))

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

    def _table(self, table: str) -> _Table:
        held = self._tables.get(table)
        if held is None:
            raise UnknownTable(table, list(self._tables))
        return held

    def _count(self, held: _Table, rows: int) -> None:
        """Add so many rows to what is held, or raise TierFull."""
        wanted = rows * (held.stride_bytes + INDEX_BYTES)
        with self._budget:
            if self.max_bytes is not None and wanted > 0 and self.held_bytes + wanted > self.max_bytes:
                raise TierFull(self.name, held.spec.name, rows, self.held_bytes, self.max_bytes, wanted)
            self.held_bytes += wanted
