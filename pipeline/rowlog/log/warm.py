"""Compile the log's kernels, and those of its index, before training waits for them."""

from __future__ import annotations

import numpy as np

from pipeline.rowlog.log.records import MemoryExtents, Records, Rows
from pipeline.rowlog.places import FEWEST_ENTRIES, PlaceIndex
from pipeline.rowlog.places_recovery import Recovery
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec


def warm_up() -> None:
    """Run each kernel once, compiling it or loading it from the cache on disk."""
    spec = TableSpec("t", RowLayout((Column("weight", "float32", 4, "weight"),)), Initializer("uniform"), 0)
    records, ids_n, into_n = Records.of(spec), np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    rows = Rows(np.zeros((1, records.row_bytes), dtype=np.uint8), np.ones(1, dtype=np.int64))
    data = np.zeros(records.data_bytes(1), dtype=np.uint8)
    records.pack(0, ids_n, rows.rows_nb, rows.versions_n, data)
    assert records.unpack(data, ids_n, ids_n, ids_n, into_n, rows) < 0
    extents = MemoryExtents(ids_n, np.ones(1, dtype=np.int64), np.array([data.ctypes.data]))
    assert records.unpack_memory(extents, extents.find(ids_n), ids_n, ids_n, rows) < 0
    index = PlaceIndex()
    index.put(ids_n, ids_n)
    index.move(ids_n, ids_n, index.find(ids_n))
    with Recovery(index, 1, rows.versions_n, ids_n) as recovery:
        recovery.enter(ids_n, ids_n)
    index.ids()
    index.remove(ids_n)
    _split_a_shard()


def _split_a_shard() -> None:
    index = PlaceIndex(shard_entries=FEWEST_ENTRIES)
    ids_n = np.arange(2 * FEWEST_ENTRIES, dtype=np.int64)
    index.put(ids_n, ids_n)
    assert len(index.directory.shards_kf) > 1
