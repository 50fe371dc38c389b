"""Loads (or, on a fresh machine, compiles) what applying a cut needs, before the first cut is waited for."""

from __future__ import annotations

import numpy as np

from pipeline.replica.carried import Carried
from pipeline.replica.rowmap import RowMap
from pipeline.replica.table import Table
from pipeline.rows.codec import CODECS
from pipeline.rows.digest import TableRuns, rows_digest
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec


def warm_up() -> None:
    """Run each kernel once on one row."""
    ids_n, weights_nd, versions_n = np.zeros(1, np.int64), np.zeros((1, 4), np.float32), np.ones(1, np.int64)
    rows, extra_nx = RowMap(4, 1), np.zeros((1, 1), np.uint8)
    rows.put(ids_n, weights_nd, versions_n, extra_nx)
    rows.read_found(ids_n, weights_nd, versions_n, extra_nx)
    rows.index.items()
    rows.remove(ids_n)
    layout = RowLayout((Column("weight", "float32", 4, "weight"),))
    spec = TableSpec("warm", layout, Initializer(), 0)
    Table(spec, Carried(spec), rows).fill_initial(ids_n, weights_nd, versions_n * 0)
    runs = TableRuns(("warm",), (0, 1), ids_n, versions_n)
    for codec in CODECS.values():
        codec.digest(codec.encode(weights_nd), 4, runs)
        rows.put_encoded(ids_n, codec.encode(weights_nd), codec, versions_n, extra_nx)
    rows_digest("warm", ids_n, weights_nd.view(np.uint8), versions_n)
