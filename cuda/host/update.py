"""The fused kernel of a step: sum each distinct row's gradient, apply its table's rule in place, set its version."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from cuda.host.compiled import device, parallel_kernel
from cuda.host.gradients import AHEAD as TERMS_AHEAD
from cuda.host.gradients import WORK, Terms, prefetch_terms, row_of_work, sum_row, terms_pointers
from cuda.host.machine import pointer, prefetch_write, take
from cuda.host.rows import Pool, pool_pointers, prefetch_row_to_write, row_address
from cuda.host.rules import apply
from cuda.plan import Float32s, Int32s, Int64s

AHEAD = 8
"""Rows are asked for this many rows before they are changed."""


class Rules(NamedTuple):
    """What each table's update needs. Arrays outside kernels, pointers in their loops."""

    rules_t: Int64s
    hypers_t: Int64s
    """Address of each table's hyper-parameters."""
    states_t: Int64s
    """Byte offset of the first state column in a row."""
    used_bytes_t: Int64s
    """Length of a table's row."""


@device
def rules_pointers(rules: Rules) -> Rules:
    """The rules as the loops of kernels take them, see ``machine.pointer``."""
    return Rules(pointer(rules.rules_t), pointer(rules.hypers_t), pointer(rules.states_t), pointer(rules.used_bytes_t))


@device
def _prefetch(pool: Pool, terms: Terms, rules: Rules, slots_u: Int32s, versions: int, start: int, end: int) -> None:
    for u in range(start, end):
        prefetch_row_to_write(row_address(pool, slots_u[u]), rules.used_bytes_t[terms.tables_u[u]])
        prefetch_write(versions + 8 * pool.version_step * slots_u[u], 8)


@device
def _update_some(
    pool: Pool, terms: Terms, rules: Rules, slots_u: Int32s, versions: int, version: int, scratch: int, work: int
) -> None:
    first, last = row_of_work(terms, work), row_of_work(terms, work + WORK)
    _prefetch(pool, terms, rules, slots_u, versions, first, min(first + AHEAD, last))
    if first < last:
        start = terms.starts_u[first]
        prefetch_terms(terms, start, start + TERMS_AHEAD, terms.dims_t[terms.tables_u[first]])
    for u in range(first, last):
        _prefetch(pool, terms, rules, slots_u, versions, u + AHEAD, min(u + AHEAD + 1, last))
        table = terms.tables_u[u]
        dim, row = terms.dims_t[table], row_address(pool, slots_u[u])
        gradient = sum_row(terms, u, dim, scratch)
        apply(rules.rules_t[table], row, row + rules.states_t[table], gradient, dim, rules.hypers_t[table])
        pool.versions[slots_u[u] * pool.version_step] = version


@parallel_kernel
def update(
    pool: Pool, terms: Terms, rules: Rules, slots_u: Int32s, version: int, scratch_wd: Float32s, threads: int
) -> None:
    """Update every distinct row once. ``scratch_wd`` [threads, largest dim, rounded up to whole lines]."""
    taken = np.zeros(1, np.int64)
    for worker in prange(threads):
        start = take(taken, 0, WORK)
        while start < terms.num_rows + terms.num_ids:
            _update_some(
                pool_pointers(pool),
                terms_pointers(terms),
                rules_pointers(rules),
                pointer(slots_u),
                pool.versions.ctypes.data,
                version,
                scratch_wd.ctypes.data + 4 * worker * scratch_wd.shape[1],
                start,
            )
            start = take(taken, 0, WORK)
