"""The fused kernel of a step: sum each distinct row's gradient, apply its table's rule in place, set its version."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from cuda.host.compiled import device, parallel_kernel
from cuda.host.gradients import AHEAD as TERMS_AHEAD
from cuda.host.gradients import WORK, Terms, prefetch_terms, row_of_work, sum_row, terms_pointers
from cuda.host.machine import pointer, prefetch_write, take
from cuda.host.rows import Pool, RowBytes, pool_pointers, prefetch_row_to_write, row_address
from cuda.host.rules import apply
from cuda.host.update_rules import Rules, rules_pointers, update_narrow
from cuda.host.vector import all_finite, limit_norm
from cuda.plan import Int32s, Int64s

AHEAD = 8
"""Rows are asked for this many rows before they are changed."""


class Rows(NamedTuple):
    """The distinct rows of a step. Arrays outside kernels, pointers in their loops."""

    slots_u: Int32s
    ids_u: Int64s
    version: int
    """What they get."""
    step: int


@device
def _rows_pointers(rows: Rows) -> Rows:
    return Rows(pointer(rows.slots_u), pointer(rows.ids_u), rows.version, rows.step)


@device
def _prefetch(pool: Pool, terms: Terms, rules: Rules, slots_u: Int32s, versions: int, start: int, end: int) -> None:
    for u in range(start, end):
        prefetch_row_to_write(row_address(pool, slots_u[u]), rules.used_bytes_t[terms.tables_u[u]])
        prefetch_write(versions + 8 * pool.version_step * slots_u[u], 8)


@device
def _update_row(pool: Pool, rules: Rules, rows: Rows, u: int, table: int, dim: int, gradient: int, room: int) -> None:
    row = row_address(pool, rows.slots_u[u])
    if rules.narrow_t[table]:
        update_narrow(rules, table, row, gradient, dim, rows.ids_u[u], rows.step, room)
        return
    apply(rules.rules_t[table], row, row + rules.states_t[table], gradient, dim, rules.hypers_t[table])
    if rules.max_norms_t[table] > 0:
        limit_norm(row, rules.max_norms_t[table], dim)


@device
def _update_some(
    pool: Pool, terms: Terms, rules: Rules, rows: Rows, versions: int, bad: Int64s, rooms: int, work: int
) -> None:
    """``bad``: counts rows whose gradient is not finite, by table."""
    slots_u = rows.slots_u
    first, last = row_of_work(terms, work), row_of_work(terms, work + WORK)
    _prefetch(pool, terms, rules, slots_u, versions, first, min(first + AHEAD, last))
    if first < last:
        start = terms.starts_u[first]
        prefetch_terms(terms, start, start + TERMS_AHEAD, terms.dims_t[terms.tables_u[first]])
    for u in range(first, last):
        _prefetch(pool, terms, rules, slots_u, versions, u + AHEAD, min(u + AHEAD + 1, last))
        table = terms.tables_u[u]
        dim = terms.dims_t[table]
        gradient = sum_row(terms, u, dim, rooms)
        if all_finite(gradient, dim):
            _update_row(pool, rules, rows, u, table, dim, gradient, rooms + rules.gradient_bytes)
        else:
            bad[table] += 1
        pool.versions[slots_u[u] * pool.version_step] = rows.version


@parallel_kernel
def update(
    pool: Pool, terms: Terms, rules: Rules, rows: Rows, bad_wt: Int64s, rooms_wb: RowBytes, threads: int
) -> None:
    """Update every distinct row once, but those whose gradient is not finite, which only get the version.

    ``bad_wt`` [threads, T] counts these; ``rooms_wb`` [threads, bytes]: see ``TableSet.update_rooms``.
    """
    taken = np.zeros(1, np.int64)
    for worker in prange(threads):
        start = take(taken, 0, WORK)
        while start < terms.num_rows + terms.num_ids:
            _update_some(
                pool_pointers(pool),
                terms_pointers(terms),
                rules_pointers(rules),
                _rows_pointers(rows),
                pool.versions.ctypes.data,
                pointer(bad_wt[worker]),
                rooms_wb.ctypes.data + worker * rooms_wb.shape[1],
                start,
            )
            start = take(taken, 0, WORK)
