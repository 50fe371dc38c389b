"""A replica's rows as its row log has them.

The log finds the newest of several records of an id by its version. A row's own version does not serve: a fork, or a snapshot cut of one,
brings older rows. So the log's versions are the serial numbers of the cuts that were applied, and a row's own version is a column.

Legend: n rows; d weights of a row; x bytes of a row beside its weights (``carried``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.replica.carried import Carried
from pipeline.replica.rowmap import Float32s, Int64s, RowBytes
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import TableSpec

WEIGHT, VERSION, CARRIED = "weight", "version", "carried"


class HeldRows(NamedTuple):
    """Rows of one table as a replica holds them."""

    ids_n: Int64s
    weights_nd: Float32s
    versions_n: Int64s
    extra_nx: RowBytes


def log_spec(spec: TableSpec, carried: Carried) -> TableSpec:
    """The table as the log has it: weights decoded, the version, and what rides along."""
    columns = [Column(WEIGHT, "float32", spec.dim, "weight"), Column(VERSION, "int64", 1, "meta")]
    if carried.row_bytes:
        columns.append(Column(CARRIED, "uint8", carried.row_bytes, "meta"))
    return TableSpec(spec.name, RowLayout(tuple(columns)), spec.initializer, spec.seed, spec.default)


def pack(layout: RowLayout, weights_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes) -> RowBytes:
    """Packed rows, a new array."""
    rows_nb = layout.empty(len(versions_n))
    layout.view(rows_nb, WEIGHT)[:] = weights_nd
    layout.view(rows_nb, VERSION)[:, 0] = versions_n
    if extra_nx.shape[1]:
        layout.view(rows_nb, CARRIED)[:] = extra_nx
    return rows_nb


def unpack(layout: RowLayout, ids_n: Int64s, rows_nb: RowBytes) -> HeldRows:
    """Views of packed rows; a row that was not found is all zeros."""
    carries = len(layout.columns) > 2
    extra_nx = layout.view(rows_nb, CARRIED) if carries else np.empty((len(ids_n), 0), dtype=np.uint8)
    return HeldRows(ids_n, layout.view(rows_nb, WEIGHT), layout.view(rows_nb, VERSION)[:, 0], extra_nx)
