"""Rows of one table in the replica's row log: ``table.TableRows`` on disk, found by an index in memory, looked up by random reads."""

from __future__ import annotations

import numpy as np

from pipeline.replica.carried import Carried
from pipeline.replica.cuts import StagedRows
from pipeline.replica.rowmap import NO_EXTRA, Float32s, Int64s, RowBytes
from pipeline.replica.targets.log_store import LogStore
from pipeline.rows.arrays import read_only_ids
from pipeline.rows.codec import Codec
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

    def put_encoded(
        self, ids_n: Int64s, encoded_nb: RowBytes, codec: Codec, versions_n: Int64s, extra_nx: RowBytes = NO_EXTRA
    ) -> Int64s:
        self._store.put(
            StagedRows(self._table, ids_n, encoded_nb, versions_n, ids_n[:0], codec, self._dim, self._carried, extra_nx)
        )
        return ids_n

    def remove(self, ids_n: Int64s) -> None:
        self._store.forget(self._table, ids_n)

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
