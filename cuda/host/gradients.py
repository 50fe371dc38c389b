"""Kernels for gradients: where each occurrence's gradient lies and with which factor it counts, and their sums per distinct row.

The arithmetic stands at ``Backend.sum_gradients`` and ``Backend.weight_gradients``. Each distinct row is summed by one thread, over
its occurrences in (feature, position) order, so no result depends on slots or threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from cuda.host.batch import ADDRESS, DIM, POOLING, START, STRIDE_BYTES, Batch
from cuda.host.compiled import device, parallel_kernel
from cuda.host.machine import take
from cuda.host.rows import Pool, prefetch_row, row_address
from cuda.host.vector import ONE, add, add_scaled, clear, copy, dot, scale
from cuda.plan import MEAN, NONE, Float32s, Int32s, Int64s

SAMPLES = 64
AHEAD = 8
"""Gradients are asked for this many occurrences before they are used."""
WORK = 128
"""Rows plus occurrences that a thread takes at a time."""


class Terms(NamedTuple):
    """What each distinct row's gradient is the sum of."""

    addresses_n: Int64s
    """Of the gradient that position n's row receives; 0 where its feature took no part."""
    factors_n: Float32s
    """Its factor; empty where every factor is one."""
    tables_u: Int32s
    starts_u: Int64s
    occurrences_n: Int32s
    dims_t: Int64s


@device
def _bag_terms(batch: Batch, terms: Terms, f: int, b: int) -> None:
    start, pooling = batch.features_fk[f, START], batch.features_fk[f, POOLING]
    address, stride = batch.features_fk[f, ADDRESS], batch.features_fk[f, STRIDE_BYTES]
    first, last = batch.offsets_fb[f, b], batch.offsets_fb[f, b + 1]
    for n in range(first, last):
        line = n - start if pooling == NONE else b
        terms.addresses_n[n] = 0 if address == 0 else address + line * stride
    if terms.factors_n.shape[0] > 0:
        ids = np.float32(last - first) if pooling == MEAN else ONE
        for n in range(first, last):
            weight = ONE if batch.weights_n.shape[0] == 0 else batch.weights_n[n]
            terms.factors_n[n] = weight / ids


@parallel_kernel
def find_terms(batch: Batch, terms: Terms, threads: int) -> None:
    """Fill ``addresses_n`` and, unless it is empty, ``factors_n``."""
    taken = np.zeros(1, np.int64)
    features, samples = batch.features_fk.shape[0], batch.offsets_fb.shape[1] - 1
    for _ in prange(threads):
        first = take(taken, 0, SAMPLES)
        while first < samples:
            for f in range(features):
                for b in range(first, min(first + SAMPLES, samples)):
                    _bag_terms(batch, terms, f, b)
            first = take(taken, 0, SAMPLES)


@device
def row_of_work(starts_u: Int64s, work: int) -> int:
    """The first row u with u + starts_u[u] >= work: cuts rows into runs of equal rows plus occurrences."""
    low, high = 0, starts_u.shape[0] - 1
    while low < high:
        middle = (low + high) >> 1
        if middle + starts_u[middle] < work:
            low = middle + 1
        else:
            high = middle
    return low


@device
def prefetch_terms(terms: Terms, start: int, end: int, dim: int) -> None:
    """Ask for the gradients of occurrences start .. end."""
    for k in range(start, min(end, terms.occurrences_n.shape[0])):
        prefetch_row(terms.addresses_n[terms.occurrences_n[k]], 4 * dim)


@device
def sum_row(terms: Terms, u: int, dim: int, target: int) -> None:
    """target = the gradient of row u; asks for the gradients of the rows behind it as it goes."""
    scaled, empty = terms.factors_n.shape[0] > 0, True
    for k in range(terms.starts_u[u], terms.starts_u[u + 1]):
        prefetch_terms(terms, k + AHEAD, k + AHEAD + 1, dim)
        n = terms.occurrences_n[k]
        source = terms.addresses_n[n]
        if source == 0:
            continue
        factor = terms.factors_n[n] if scaled else ONE
        if empty and scaled:
            scale(target, source, factor, dim)
        elif empty:
            copy(target, source, factor, dim)
        elif scaled:
            add_scaled(target, source, factor, dim)
        else:
            add(target, source, factor, dim)
        empty = False
    if empty:
        clear(target, target, ONE, dim)


@parallel_kernel
def sum_rows(terms: Terms, sums_ud: Float32s, threads: int) -> None:
    """Write the gradient of each distinct row to ``sums_ud``, zeros behind its dim."""
    taken = np.zeros(1, np.int64)
    rows, width = sums_ud.shape
    work = rows + terms.occurrences_n.shape[0]
    for _ in prange(threads):
        start = take(taken, 0, WORK)
        while start < work:
            for u in range(row_of_work(terms.starts_u, start), row_of_work(terms.starts_u, start + WORK)):
                dim = terms.dims_t[terms.tables_u[u]]
                target = sums_ud.ctypes.data + 4 * u * width
                sum_row(terms, u, dim, target)
                clear(target + 4 * dim, target, ONE, width - dim)
            start = take(taken, 0, WORK)


@parallel_kernel
def weight_gradients(pool: Pool, batch: Batch, terms: Terms, result_n: Float32s, threads: int) -> None:
    """Write dL/dw_n to ``result_n``; 0 where the feature took no part. ``factors_n`` is not read."""
    taken = np.zeros(1, np.int64)
    features, samples = batch.features_fk.shape[0], batch.offsets_fb.shape[1] - 1
    for _ in prange(threads):
        first = take(taken, 0, SAMPLES)
        while first < samples:
            for f in range(features):
                for b in range(first, min(first + SAMPLES, samples)):
                    _bag_weight_gradients(pool, batch, terms, result_n, f, b)
            first = take(taken, 0, SAMPLES)


@device
def _bag_weight_gradients(pool: Pool, batch: Batch, terms: Terms, result_n: Float32s, f: int, b: int) -> None:
    dim, first, last = batch.features_fk[f, DIM], batch.offsets_fb[f, b], batch.offsets_fb[f, b + 1]
    ids = np.float32(last - first) if batch.features_fk[f, POOLING] == MEAN else ONE
    for n in range(first, last):
        source = terms.addresses_n[n]
        row = row_address(pool, batch.slots_u[batch.inverse_n[n]])
        result_n[n] = np.float32(0.0) if source == 0 else dot(source, row, dim) / ids
