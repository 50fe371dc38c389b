"""Kernels for gradients: where each occurrence's gradient lies and with which factor it counts, and their sums per distinct row.

The arithmetic stands at ``Backend.sum_gradients`` and ``Backend.weight_gradients``. Each distinct row is summed by one thread, over
its occurrences in (feature, position) order, so no result depends on slots or threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from cuda.host.batch import Batch, batch_pointers, offset
from cuda.host.compiled import device, parallel_kernel
from cuda.host.machine import pointer, prefetch_once, take
from cuda.host.narrow import weights_of, whole
from cuda.host.rows import MAX_BYTES, Pool, RowBytes, pool_pointers, row_address
from cuda.host.vector import ONE, add, add_scaled, clear, clip, copy, dot, scale
from cuda.plan import MEAN, NONE, Float32s, Int32s, Int64s, Matrix

SAMPLES = 64
AHEAD = 16
"""Gradients are asked for this many occurrences before they are used."""
WORK = 512
"""Rows plus occurrences that a thread takes at a time."""


class Terms(NamedTuple):
    """What each distinct row's gradient is the sum of. Arrays outside kernels, pointers in their loops."""

    num_rows: int
    num_ids: int
    scaled: bool
    addresses_n: Int64s
    """Of the gradient that position n's row receives; 0 where its feature took no part."""
    factors_n: Float32s
    """Its factor; empty unless ``scaled``, where every factor is one."""
    tables_u: Int32s
    starts_u: Int64s
    occurrences_n: Int32s
    dims_t: Int64s


@device
def terms_pointers(terms: Terms) -> Terms:
    """The terms as the loops of kernels take them, see ``machine.pointer``."""
    return Terms(
        terms.num_rows,
        terms.num_ids,
        terms.scaled,
        pointer(terms.addresses_n),
        pointer(terms.factors_n),
        pointer(terms.tables_u),
        pointer(terms.starts_u),
        pointer(terms.occurrences_n),
        pointer(terms.dims_t),
    )


@device
def _bag_terms(batch: Batch, terms: Terms, f: int, b: int) -> None:
    start, pooling = batch.starts_f[f], batch.poolings_f[f]
    address, stride = batch.addresses_f[f], batch.strides_f[f]
    first, last = offset(batch, f, b), offset(batch, f, b + 1)
    for n in range(first, last):
        line = n - start if pooling == NONE else b
        terms.addresses_n[n] = 0 if address == 0 else address + line * stride
    if terms.scaled:
        ids = np.float32(last - first) if pooling == MEAN else ONE
        for n in range(first, last):
            weight = batch.weights_n[n] if batch.weighted else ONE
            terms.factors_n[n] = weight / ids


@device
def _block_terms(batch: Batch, terms: Terms, num_features: int, first: int, last: int) -> None:
    for f in range(num_features):
        for b in range(first, last):
            _bag_terms(batch, terms, f, b)


@parallel_kernel
def _clip(source: int, stride: int, result_bd: Float32s, most: float, threads: int) -> None:
    taken = np.zeros(1, np.int64)
    for _ in prange(threads):
        first = take(taken, 0, SAMPLES)
        while first < result_bd.shape[0]:
            for b in range(first, min(first + SAMPLES, result_bd.shape[0])):
                target = result_bd.ctypes.data + 4 * b * result_bd.shape[1]
                clip(target, source + 4 * b * stride, np.float32(most), result_bd.shape[1])
            first = take(taken, 0, SAMPLES)


def clipped(matrix: Matrix, most: float, threads: int) -> Matrix:
    """A copy with each number brought within -most .. most. A NaN stays one."""
    result_bd = np.empty((matrix.rows, matrix.dim), np.float32)
    _clip(matrix.address, matrix.row_stride, result_bd, float(most), threads)
    return Matrix.of(result_bd)


@parallel_kernel
def find_terms(batch: Batch, terms: Terms, threads: int) -> None:
    """Fill ``addresses_n`` and, unless it is empty, ``factors_n``."""
    taken = np.zeros(1, np.int64)
    for _ in prange(threads):
        first = take(taken, 0, SAMPLES)
        while first < batch.num_samples:
            last = min(first + SAMPLES, batch.num_samples)
            _block_terms(batch_pointers(batch), terms_pointers(terms), batch.dims_f.shape[0], first, last)
            first = take(taken, 0, SAMPLES)


@device
def row_of_work(terms: Terms, work: int) -> int:
    """The first row u with u + starts_u[u] >= work: cuts rows into runs of equal rows plus occurrences."""
    low, high = 0, terms.num_rows
    while low < high:
        middle = (low + high) >> 1
        if middle + terms.starts_u[middle] < work:
            low = middle + 1
        else:
            high = middle
    return low


@device
def prefetch_terms(terms: Terms, start: int, end: int, dim: int) -> None:
    """Ask for the gradients of occurrences start .. end. Once summed they are dead: pooled rows may have their place in the caches."""
    for k in range(start, min(end, terms.num_ids)):
        prefetch_once(terms.addresses_n[terms.occurrences_n[k]], min(4 * dim, MAX_BYTES))


@device
def sum_row(terms: Terms, u: int, dim: int, scratch: int) -> Any:
    """The address of row u's gradient: in ``scratch``, or in place where it is a single gradient as it stands.

    Asks for the gradients of the rows behind it as it goes.
    """
    first, last, count = terms.starts_u[u], terms.starts_u[u + 1], 0
    for k in range(first, last):
        prefetch_terms(terms, k + AHEAD, k + AHEAD + 1, dim)
        n = terms.occurrences_n[k]
        source = terms.addresses_n[n]
        if source == 0:
            continue
        if terms.scaled:
            if count == 0:
                scale(scratch, source, terms.factors_n[n], dim)
            else:
                add_scaled(scratch, source, terms.factors_n[n], dim)
        elif last - first == 1:
            return source
        elif count == 0:
            copy(scratch, source, ONE, dim)
        else:
            add(scratch, source, ONE, dim)
        count += 1
    if count == 0:
        clear(scratch, scratch, ONE, dim)
    return scratch


@device
def _sum_some(terms: Terms, sums: int, width: int, work: int) -> None:
    for u in range(row_of_work(terms, work), row_of_work(terms, work + WORK)):
        dim = terms.dims_t[terms.tables_u[u]]
        target = sums + 4 * u * width
        gradient = sum_row(terms, u, dim, target)
        if gradient != target:
            copy(target, gradient, ONE, dim)
        clear(target + 4 * dim, target, ONE, width - dim)


@parallel_kernel
def sum_rows(terms: Terms, sums_ud: Float32s, threads: int) -> None:
    """Write the gradient of each distinct row to ``sums_ud``, zeros behind its dim."""
    taken = np.zeros(1, np.int64)
    for _ in prange(threads):
        start = take(taken, 0, WORK)
        while start < terms.num_rows + terms.num_ids:
            _sum_some(terms_pointers(terms), sums_ud.ctypes.data, sums_ud.shape[1], start)
            start = take(taken, 0, WORK)


@device
def _block_weight_gradients(
    pool: Pool, batch: Batch, terms: Terms, results_n: Float32s, num_features: int, first: int, last: int, room: int
) -> None:
    for f in range(num_features):
        dim, mean = batch.dims_f[f], batch.poolings_f[f] == MEAN
        shorts = room + 4 * whole(dim)
        for b in range(first, last):
            start, end = offset(batch, f, b), offset(batch, f, b + 1)
            ids = np.float32(end - start) if mean else ONE
            for n in range(start, end):
                row = row_address(pool, batch.slots_u[batch.inverse_n[n]])
                source = terms.addresses_n[n]
                weights = weights_of(row, batch.kinds_f[f], dim, shorts, room)
                results_n[n] = np.float32(0.0) if source == 0 else dot(source, weights, dim) / ids


@parallel_kernel
def weight_gradients(
    pool: Pool, batch: Batch, terms: Terms, results_n: Float32s, rooms_wb: RowBytes, threads: int
) -> None:
    """Write dL/dw_n to ``results_n``; 0 where the feature took no part. ``factors_n`` is not read. ``rooms_wb``: see ``gather``."""
    taken = np.zeros(1, np.int64)
    for worker in prange(threads):
        first = take(taken, 0, SAMPLES)
        while first < batch.num_samples:
            _block_weight_gradients(
                pool_pointers(pool),
                batch_pointers(batch),
                terms_pointers(terms),
                pointer(results_n),
                batch.dims_f.shape[0],
                first,
                min(first + SAMPLES, batch.num_samples),
                rooms_wb.ctypes.data + worker * rooms_wb.shape[1],
            )
            first = take(taken, 0, SAMPLES)
