"""Loads (or, on a fresh machine, compiles) what applying a cut needs, before the first cut is waited for."""

from __future__ import annotations

import numpy as np

from pipeline.replica.carried import Carried
from pipeline.replica.cuts import StagedRows
from pipeline.replica.table import Table, rows_in_memory
from pipeline.rows.codec import CODECS
from pipeline.rows.digest import TableRuns, rows_digest
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec


def warm_up() -> None:
    """Run each kernel once on one row."""
    ids_n, weights_nd, versions_n = np.zeros(1, np.int64), np.zeros((1, 4), np.float32), np.ones(1, np.int64)
    layout = RowLayout((Column("weight", "float32", 4, "weight"), Column("seen", "uint8", 1, "meta")))
    spec = TableSpec("warm", layout, Initializer(), 0)
    carried, extra_nx = Carried(spec, ("seen",)), np.zeros((1, 1), np.uint8)
    rows = rows_in_memory(spec, carried)
    runs = TableRuns(("warm",), (0, 1), ids_n, versions_n)
    for codec in CODECS.values():
        encoded_nb = codec.encode(weights_nd)
        codec.digest(encoded_nb, 4, runs)
        staged = StagedRows("warm", ids_n, encoded_nb, versions_n, ids_n, codec, 4, carried, extra_nx)
        rows.show(rows.place(staged), None)
    rows.put(ids_n, weights_nd, versions_n, extra_nx)
    rows.read_found(ids_n, weights_nd, versions_n, extra_nx)
    rows.index.items()
    old = rows.old_rows()
    rows.remove(ids_n, old)
    old.read_found(ids_n, weights_nd, versions_n, extra_nx)
    Table(spec, carried, rows).fill_initial(ids_n, weights_nd, versions_n * 0)
    rows_digest("warm", ids_n, weights_nd.view(np.uint8), versions_n)
