"""RocksDB behind the Tier interface, through ``rocksdict``: one database a table, keys of eight bytes, values of version and row.

No write-ahead log, no compression, bloom filters, as the reference sets its own up. Loops over rows are the binding's: it takes and
gives one Python object a row. Everything else is done in bulk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cuda.backend import forbid_event_loop
from pipeline.rows.spec import TableSpec
from pipeline.store.errors import UnknownTable
from pipeline.store.tier import Bools, Int64s, RowBytes, TierRows

KEY_BYTES = VERSION_BYTES = 8


class RocksTier:
    """Implements ``Tier``. ``direct``: reads past the page cache, and no block cache either; else one of ``cache_bytes``."""

    name = "rocksdb"

    def __init__(self, directory: Path, *, direct: bool = False, cache_bytes: int = 1 << 30) -> None:
        self._directory, self._direct, self._cache_bytes = directory, direct, cache_bytes
        self._tables: dict[str, Any] = {}
        self._row_bytes: dict[str, int] = {}
        self._new_batch: Any = None

    def open(self, specs: Sequence[TableSpec]) -> None:
        """Raises ModuleNotFoundError without ``rocksdict``."""
        import rocksdict

        unlogged = rocksdict.WriteOptions()
        unlogged.disable_wal = True
        cache = None if self._direct else rocksdict.Cache(self._cache_bytes)
        for spec in specs:
            made = rocksdict.Rdict(str(self._directory / spec.name), self._options(rocksdict, cache))
            made.set_write_options(unlogged)
            self._tables[spec.name], self._row_bytes[spec.name] = made, spec.layout.row_bytes
        self._new_batch = lambda: rocksdict.WriteBatch(raw_mode=True)

    def _options(self, rocksdict: Any, cache: Any) -> Any:
        blocks = rocksdict.BlockBasedOptions()
        blocks.set_bloom_filter(10, False)
        blocks.set_block_size(4096)
        blocks.disable_cache() if cache is None else blocks.set_block_cache(cache)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_compression_type(rocksdict.DBCompressionType.none())
        options.increase_parallelism(2)
        options.set_use_direct_reads(self._direct)
        options.set_block_based_table_factory(blocks)
        return options

    def get(self, table: str, ids_n: Int64s) -> TierRows:
        held, width = self._table("get", table), self._row_bytes[table] + VERSION_BYTES
        values = held.get(_keys(ids_n)) if len(ids_n) else []
        found_n = np.array([value is not None for value in values], dtype=np.bool_)
        packed_nb = np.zeros((len(ids_n), width), np.uint8)
        packed_nb[found_n] = np.frombuffer(b"".join(filter(None, values)), np.uint8).reshape(-1, width)
        versions_n = packed_nb[:, :VERSION_BYTES].copy().view(np.int64).reshape(-1)
        return TierRows(packed_nb[:, VERSION_BYTES:], versions_n, found_n)

    def put(self, table: str, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s) -> None:
        held, row_bytes = self._table("put", table), self._row_bytes[table]
        versions_nb = np.ascontiguousarray(versions_n, np.int64).view(np.uint8).reshape(-1, VERSION_BYTES)
        packed_nb = np.concatenate([versions_nb, rows_nb[:, :row_bytes]], axis=1)
        batch = self._new_batch()
        deque(map(batch.put, _keys(ids_n), _objects(packed_nb)), maxlen=0)
        held.write(batch)

    def delete(self, table: str, ids_n: Int64s) -> None:
        held, batch = self._table("delete", table), self._new_batch()
        deque(map(batch.delete, _keys(ids_n)), maxlen=0)
        held.write(batch)

    def holds(self, table: str, ids_n: Int64s) -> Bools:
        return self.get(table, ids_n).found_n

    def ids(self, table: str) -> Int64s:
        keys = b"".join(self._table("ids", table).keys())
        return np.frombuffer(keys, ">i8").astype(np.int64)

    def count(self, table: str) -> int:
        return len(self.ids(table))

    def flush(self) -> None:
        """Write what is in memory, and wait for it."""
        forbid_event_loop("RocksTier.flush")
        for held in self._tables.values():
            held.flush()

    def close(self) -> None:
        for held in self._tables.values():
            held.close()
        self._tables = {}

    def _table(self, what: str, table: str) -> Any:
        forbid_event_loop(f"RocksTier.{what}")
        if table not in self._tables:
            raise UnknownTable(table, list(self._tables))
        return self._tables[table]


def _keys(ids_n: Int64s) -> list[bytes]:
    """Big-endian, as an index in order of ids has it."""
    return _objects(np.ascontiguousarray(ids_n).astype(">i8").view(np.uint8).reshape(-1, KEY_BYTES))


def _objects(rows_nb: npt.NDArray[np.uint8]) -> list[bytes]:
    """One bytes object a row."""
    if not len(rows_nb):
        return []
    objects: list[bytes] = np.ascontiguousarray(rows_nb).view(f"V{rows_nb.shape[1]}").reshape(-1).tolist()
    return objects
