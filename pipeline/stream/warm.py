"""Loads (or, on a fresh machine, compiles) what a cut may need, before the first one: else the first that goes the general way waits for
the compiler.
"""

from __future__ import annotations

import numpy as np

from pipeline.rows.codec import CODECS
from pipeline.rows.digest import TableRuns, rows_digest
from pipeline.rows.distinct import union
from pipeline.rows.index import IdIndex
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.transpose import transpose_bytes


def warm_up() -> None:
    """Run each kernel once on one row."""
    layout = RowLayout((Column("weight", "float32", 4, "weight"),))
    rows_nb, ids_n, versions_n = np.zeros((1, layout.row_bytes), np.uint8), np.zeros(1, np.int64), np.ones(1, np.int64)
    runs = TableRuns(("warm",), (0, 1), ids_n, versions_n)
    for codec in CODECS.values():
        codec.encode_hashed(layout.singles(rows_nb, "weight"), runs)
    rows_digest("warm", ids_n, rows_nb, versions_n)
    transpose_bytes(union(ids_n).view(np.uint8), 1, 8)
    index = IdIndex()
    index.insert(np.arange(2 * index.capacity))  # it grows
    index.find(ids_n)
    index.remove(ids_n)
    index.items()
