"""The fused kernel of a step: sum each distinct row's gradient, apply its table's rule in place, set its version."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from cuda.host.compiled import device, parallel_kernel
from cuda.host.gradients import AHEAD as TERMS_AHEAD
from cuda.host.gradients import WORK, Terms, prefetch_terms, row_of_work, sum_row
from cuda.host.machine import prefetch_write, take
from cuda.host.rows import Pool, prefetch_row_to_write, row_address
from cuda.host.rules import apply
from cuda.plan import Float32s, Int32s, Int64s

AHEAD = 8
"""Rows are asked for this many rows before they are changed."""


class Rules(NamedTuple):
    """What each table's update needs. Shapes [T] and [T, MAX_HYPER]."""

    rules_t: Int64s
    hyper_th: Float32s
    states_t: Int64s
    """Byte offset of the first state column in a row."""
    used_bytes_t: Int64s
    """Length of a table's row."""


@device
def _prefetch(pool: Pool, terms: Terms, rules: Rules, slots_u: Int32s, start: int, end: int) -> None:
    for u in range(start, end):
        prefetch_row_to_write(row_address(pool, slots_u[u]), rules.used_bytes_t[terms.tables_u[u]])
        prefetch_write(pool.versions_s.ctypes.data + 8 * np.int64(slots_u[u]))


@device
def _update_rows(
    pool: Pool, terms: Terms, rules: Rules, slots_u: Int32s, version: int, scratch_d: Float32s, first: int, last: int
) -> None:
    gradient = scratch_d.ctypes.data
    _prefetch(pool, terms, rules, slots_u, first, min(first + AHEAD, last))
    start = terms.starts_u[first]
    prefetch_terms(terms, start, start + TERMS_AHEAD, terms.dims_t[terms.tables_u[first]])
    for u in range(first, last):
        _prefetch(pool, terms, rules, slots_u, u + AHEAD, min(u + AHEAD + 1, last))
        table = terms.tables_u[u]
        dim = terms.dims_t[table]
        sum_row(terms, u, dim, gradient)
        row = row_address(pool, slots_u[u])
        apply(rules.rules_t[table], row, row + rules.states_t[table], gradient, dim, rules.hyper_th[table])
        pool.versions_s[slots_u[u]] = version


@parallel_kernel
def update(
    pool: Pool, terms: Terms, rules: Rules, slots_u: Int32s, version: int, scratch_wd: Float32s, threads: int
) -> None:
    """Update every distinct row once. ``scratch_wd`` [threads, largest dim, rounded up to whole lines]."""
    taken = np.zeros(1, np.int64)
    work = slots_u.shape[0] + terms.occurrences_n.shape[0]
    for worker in prange(threads):
        start = take(taken, 0, WORK)
        while start < work:
            first, last = row_of_work(terms.starts_u, start), row_of_work(terms.starts_u, start + WORK)
            if first < last:
                _update_rows(pool, terms, rules, slots_u, version, scratch_wd[worker], first, last)
            start = take(taken, 0, WORK)
