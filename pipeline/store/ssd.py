"""The SSD tier: the row log behind the Tier interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cuda.backend import forbid_event_loop
from pipeline.rowlog.log import RowLog
from pipeline.rows.spec import TableSpec
from pipeline.store.errors import UnknownTable
from pipeline.store.tier import Bools, Int64s, RowBytes, TierRows


class SsdTier:
    """Implements ``Tier``. Opens and closes ``log``, which begins empty."""

    name = "ssd"
    gets_at_once = 4
    """With fewer the disk waits while rows are unpacked, and at the end of each table's reads."""

    def __init__(self, log: RowLog) -> None:
        self.log = log
        self._tables: list[str] = []

    def open(self, specs: Sequence[TableSpec]) -> None:
        self._tables = [spec.name for spec in specs]
        self.log.open(specs)

    def get(self, table: str, ids_n: Int64s) -> TierRows:
        """See ``Tier.get``. Raises LogCorrupt, LogFailed."""
        self._enter("get", table)
        rows, found_n = self.log.get(table, np.ascontiguousarray(ids_n, dtype=np.int64))
        return TierRows(rows.rows_nb, rows.versions_n, found_n)

    def put(self, table: str, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s) -> None:
        """See ``Tier.put``. Waits while the disk is behind. Raises LogFailed."""
        self._enter("put", table)
        ids_n, versions_n = np.ascontiguousarray(ids_n, np.int64), np.ascontiguousarray(versions_n, np.int64)
        if len(ids_n):
            self.log.put(table, ids_n, np.ascontiguousarray(rows_nb), versions_n)

    def delete(self, table: str, ids_n: Int64s) -> None:
        self._enter("delete", table)
        self.log.delete(table, np.ascontiguousarray(ids_n, dtype=np.int64))

    def holds(self, table: str, ids_n: Int64s) -> Bools:
        self._enter("holds", table)
        held = self.log.table(table)
        with held.lock:
            return held.index.find(np.ascontiguousarray(ids_n, dtype=np.int64)) >= 0

    def ids(self, table: str) -> Int64s:
        self._enter("ids", table)
        return self.log.table(table).ids()

    def unsaved(self, table: str, _since: int, /) -> Int64s:
        """See ``ListsUnsaved``: what was put before the checkpoint began, its segments hold."""
        self._enter("unsaved", table)
        return np.concatenate([np.empty(0, dtype=np.int64), *self.log.put_since_mark(table)])

    def saved(self, _table: str, _ids_n: Int64s, _versions_n: Int64s, save: Callable[[], None], /) -> None:
        """See ``GetsSaved``. L1 puts each row as it is there, so nothing older can be on its way."""
        save()

    def count(self, table: str) -> int:
        return self.log.table(table).index.count

    def flush(self) -> None:
        forbid_event_loop("SsdTier.flush")
        self.log.flush()

    def stats(self) -> Mapping[str, Any]:
        """Figures for the report."""
        return self.log.stats()

    def close(self) -> None:
        self.log.close()

    def _enter(self, what: str, table: str) -> None:
        forbid_event_loop(f"SsdTier.{what}")
        if table not in self._tables:
            raise UnknownTable(table, self._tables)
