"""A tier of a user's own: rows in sqlite."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence

import numpy as np

from cuda.backend import forbid_event_loop
from pipeline.rows.spec import TableSpec
from pipeline.store import UnknownTable
from pipeline.store.tier import Bools, Int64s, RowBytes, TierRows


class OwnTier:
    """Implements ``pipeline.store.Tier``, nothing more: what a checkpoint has to save of it, it does not know."""

    def __init__(self, name: str = "sqlite") -> None:
        self.name = name
        self._lock = threading.Lock()

    def open(self, specs: Sequence[TableSpec]) -> None:
        self._bytes = {spec.name: spec.layout.row_bytes for spec in specs}
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute("create table rows (tab text, id integer, row blob, version integer, primary key (tab, id))")

    def get(self, table: str, ids_n: Int64s) -> TierRows:
        size = self._size(table)
        rows_nb = np.zeros((len(ids_n), size), dtype=np.uint8)
        versions_n, found_n = np.zeros(len(ids_n), dtype=np.int64), np.zeros(len(ids_n), dtype=np.bool_)
        with self._lock:
            for n, row_id in enumerate(ids_n.tolist()):
                found = self._db.execute(
                    "select row, version from rows where tab = ? and id = ?", (table, row_id)
                ).fetchone()
                if found is not None:
                    rows_nb[n], versions_n[n], found_n[n] = np.frombuffer(found[0], dtype=np.uint8), found[1], True
        return TierRows(rows_nb, versions_n, found_n)

    def put(self, table: str, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s) -> None:
        size = self._size(table)
        rows = zip(ids_n.tolist(), rows_nb, versions_n.tolist(), strict=True)
        with self._lock:
            self._db.executemany(
                "insert or replace into rows values (?, ?, ?, ?)",
                ((table, row_id, row[:size].tobytes(), version) for row_id, row, version in rows),
            )

    def delete(self, table: str, ids_n: Int64s) -> None:
        self._size(table)
        with self._lock:
            self._db.executemany(
                "delete from rows where tab = ? and id = ?", ((table, row_id) for row_id in ids_n.tolist())
            )

    def holds(self, table: str, ids_n: Int64s) -> Bools:
        return self.get(table, ids_n).found_n

    def ids(self, table: str) -> Int64s:
        self._size(table)
        with self._lock:
            found = self._db.execute("select id from rows where tab = ?", (table,)).fetchall()
        return np.array([row[0] for row in found], dtype=np.int64)

    def count(self, table: str) -> int:
        return len(self.ids(table))

    def flush(self) -> None:
        """It lives as long as the run."""

    def _size(self, table: str) -> int:
        forbid_event_loop("OwnTier")
        if table not in self._bytes:
            raise UnknownTable(table, list(self._bytes))
        return self._bytes[table]

    def close(self) -> None:
        if hasattr(self, "_db"):
            self._db.close()
