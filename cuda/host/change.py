"""How much a step changed each row's weights: they are kept before it, and compared after it. Only for those who ask.

The arithmetic stands at ``Backend.relative_change``. A row is looked at by one thread.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from cuda.host.batch import plain
from cuda.host.compiled import device, parallel_kernel
from cuda.host.machine import pointer, take
from cuda.host.narrow import weight_bytes, weights_of, whole
from cuda.host.rows import Pool, RowBytes, pool_pointers, prefetch_row, row_address
from cuda.host.tables import TableSet
from cuda.host.vector import ONE, copy, dot, subtract_scaled
from cuda.plan import Float32s, Int32s, Int64s, SlotPlan

AHEAD = 8
CHUNK = 128
ZERO = np.float32(0.0)


class Compared(NamedTuple):
    """The distinct rows of a step and their weights before it. Arrays outside kernels, pointers in their loops."""

    slots_u: Int32s
    tables_u: Int32s
    kept: int
    """Address of the weights before the step, as float32."""
    width: int
    """In floats, from one row's to the next."""
    dims_t: Int64s
    kinds_t: Int64s


def compared(plan: SlotPlan, kept_ud: Float32s, tables: TableSet) -> Compared:
    assert kept_ud.shape[0] == plan.unique.count, f"the weights of {kept_ud.shape[0]} rows for {plan.unique.count}"
    slots_u, tables_u = plain(plan.slots_u, np.int32), plain(plan.unique.tables_u, np.int32)
    return Compared(slots_u, tables_u, kept_ud.ctypes.data, kept_ud.shape[1], tables.dims_t, tables.kinds_t)


@device
def _pointers(rows: Compared) -> Compared:
    return Compared(
        pointer(rows.slots_u),
        pointer(rows.tables_u),
        rows.kept,
        rows.width,
        pointer(rows.dims_t),
        pointer(rows.kinds_t),
    )


@device
def _prefetch(pool: Pool, rows: Compared, u: int, last: int) -> None:
    if u < last:
        table = rows.tables_u[u]
        prefetch_row(row_address(pool, rows.slots_u[u]), weight_bytes(rows.dims_t[table], rows.kinds_t[table]))


@device
def _keep_some(pool: Pool, rows: Compared, first: int, last: int, room: int) -> None:
    for u in range(first, last):
        _prefetch(pool, rows, u + AHEAD, last)
        dim = rows.dims_t[rows.tables_u[u]]
        target = rows.kept + 4 * u * rows.width
        row = row_address(pool, rows.slots_u[u])
        weights = weights_of(row, rows.kinds_t[rows.tables_u[u]], dim, room + 4 * whole(dim), target)
        if weights != target:
            copy(target, weights, ONE, dim)


@device
def _compare_some(pool: Pool, rows: Compared, changes_u: Float32s, first: int, last: int, room: int) -> None:
    for u in range(first, last):
        _prefetch(pool, rows, u + AHEAD, last)
        dim = rows.dims_t[rows.tables_u[u]]
        before = rows.kept + 4 * u * rows.width
        row = row_address(pool, rows.slots_u[u])
        after = weights_of(row, rows.kinds_t[rows.tables_u[u]], dim, room + 4 * whole(dim), room)
        longer = max(dot(before, before, dim), dot(after, after, dim))
        subtract_scaled(before, after, ONE, dim)
        moved = dot(before, before, dim)
        if moved == ZERO:
            changes_u[u] = ZERO
        elif moved < np.inf and longer < np.inf:
            changes_u[u] = np.sqrt(moved) / np.sqrt(longer)
        else:
            changes_u[u] = np.inf


@parallel_kernel
def keep(pool: Pool, rows: Compared, rooms_wb: RowBytes, threads: int) -> None:
    """Copy the weights of each distinct row, widened. ``rooms_wb``: see ``gather``."""
    taken = np.zeros(1, np.int64)
    count = rows.slots_u.shape[0]
    for worker in prange(threads):
        first = take(taken, 0, CHUNK)
        while first < count:
            room = rooms_wb.ctypes.data + worker * rooms_wb.shape[1]
            _keep_some(pool_pointers(pool), _pointers(rows), first, min(first + CHUNK, count), room)
            first = take(taken, 0, CHUNK)


@parallel_kernel
def compare(pool: Pool, rows: Compared, changes_u: Float32s, rooms_wb: RowBytes, threads: int) -> None:
    """Write the relative change of each row to ``changes_u``. What was kept is used up."""
    taken = np.zeros(1, np.int64)
    count = rows.slots_u.shape[0]
    for worker in prange(threads):
        first = take(taken, 0, CHUNK)
        while first < count:
            room = rooms_wb.ctypes.data + worker * rooms_wb.shape[1]
            last = min(first + CHUNK, count)
            _compare_some(pool_pointers(pool), _pointers(rows), pointer(changes_u), first, last, room)
            first = take(taken, 0, CHUNK)
