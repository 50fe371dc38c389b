"""Rows of one table in the replica's row log: ``table.TableRows`` on disk, found by an index in memory, looked up by random reads."""

from __future__ import annotations

import numpy as np

from pipeline.replica.carried import Carried
from pipeline.replica.cuts import StagedRows
from pipeline.replica.kernels import ABSENT
from pipeline.replica.old_rows import OldCopies
from pipeline.replica.rowmap import Float32s, Int64s, RowBytes, RowMap
from pipeline.replica.targets.log_store import LogStore
from pipeline.rows.arrays import read_only_ids
from pipeline.rows.index import IdIndex
from pipeline.rows.spec import TableSpec


class LogRows:
    """See the module docstring."""

    read_rows = 2048
    """Some 30 ms of random reads of an SSD."""

    def __init__(self, store: LogStore, spec: TableSpec, carried: Carried) -> None:
        self._store, self._table, self._dim, self._carried = store, spec.name, spec.dim, carried

    @property
    def count(self) -> int:
        return self._store.count(self._table)

    def ids(self) -> Int64s:
        return self._store.ids(self._table)

    def read_found(self, ids_n: Int64s, out_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes | None = None) -> None:
        found, found_n = self._store.find(self._table, read_only_ids(ids_n))
        np.copyto(out_nd, found.weights_nd, where=found_n[:, None])
        np.copyto(versions_n, found.versions_n, where=found_n)
        if extra_nx is not None:
            np.copyto(extra_nx, found.extra_nx, where=found_n[:, None])

    def place(self, rows: StagedRows) -> StagedRows:
        """They are written when they are shown."""
        return rows

    def show(self, rows: StagedRows, old: OldCopies | None) -> Int64s:
        self._keep(rows.ids_n, old)
        self._store.put(rows)
        return rows.ids_n

    def remove(self, ids_n: Int64s, old: OldCopies | None = None) -> None:
        self._keep(ids_n, old)
        self._store.forget(self._table, ids_n)

    def old_rows(self) -> OldCopies:
        return OldCopies(RowMap(self._dim, self._carried.row_bytes))

    def _keep(self, ids_n: Int64s, old: OldCopies | None) -> None:
        if old is None:
            return
        weights_nd = np.empty((len(ids_n), self._dim), dtype=np.float32)
        versions_n = np.full(len(ids_n), ABSENT, dtype=np.int64)
        extra_nx = np.zeros((len(ids_n), self._carried.row_bytes), dtype=np.uint8)
        self.read_found(ids_n, weights_nd, versions_n, extra_nx)
        old.keep(ids_n, weights_nd, versions_n, extra_nx)

    def naming(self) -> NamedIds:
        return NamedIds(self)


class NamedIds:
    """Which rows a snapshot cut names: their ids, some 24 bytes each while it is applied."""

    def __init__(self, rows: LogRows) -> None:
        self._rows, self._named = rows, IdIndex()

    def add(self, ids_n: Int64s, _positions_n: Int64s) -> None:
        self._named.insert(ids_n)

    def others(self) -> Int64s:
        """Ids held that were not named."""
        held_n = self._rows.ids()
        return held_n[self._named.find(held_n) < 0]
