"""The kernel that reads rows and pools them into the features' matrices. The arithmetic stands at ``Backend.gather_pool``.

Work is shared out in blocks of samples, all features of a block together: when the matrices are parts of one wide matrix, its lines
are then written in order. Within a block the rows of the next feature are asked for before those of this one are used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from cuda.host.batch import ADDRESS, DIM, POOLING, START, STRIDE_BYTES, Batch
from cuda.host.compiled import device, parallel_kernel
from cuda.host.machine import take
from cuda.host.rows import Pool, prefetch_row, row_address
from cuda.host.vector import ONE, add, add_scaled, clear, copy, divide, scale
from cuda.plan import MEAN, NONE

SAMPLES = 16
AHEAD = 16
"""Rows are asked for this many positions before they are used."""


@device
def _source(pool: Pool, batch: Batch, n: int) -> Any:
    """The address of position n's row."""
    return row_address(pool, batch.slots_u[batch.inverse_n[n]])


@device
def _prefetch(pool: Pool, batch: Batch, start: int, end: int, dim: int) -> None:
    for n in range(start, end):
        prefetch_row(_source(pool, batch, n), 4 * dim)


@device
def _put(pool: Pool, batch: Batch, n: int, target: int, dim: int) -> None:
    """target = w_n * row_n"""
    source = _source(pool, batch, n)
    if batch.weights_n.shape[0] == 0:
        copy(target, source, ONE, dim)
    else:
        scale(target, source, batch.weights_n[n], dim)


@device
def _add(pool: Pool, batch: Batch, n: int, target: int, dim: int) -> None:
    """target += w_n * row_n"""
    source = _source(pool, batch, n)
    if batch.weights_n.shape[0] == 0:
        add(target, source, ONE, dim)
    else:
        add_scaled(target, source, batch.weights_n[n], dim)


@device
def _bag(pool: Pool, batch: Batch, f: int, b: int, end: int) -> None:
    """One bag of a pooled feature. ``end``: where the block's positions of this feature end."""
    dim = batch.features_fk[f, DIM]
    target = batch.features_fk[f, ADDRESS] + b * batch.features_fk[f, STRIDE_BYTES]
    first, last = batch.offsets_fb[f, b], batch.offsets_fb[f, b + 1]
    if first == last:
        clear(target, target, ONE, dim)
        return
    for n in range(first, last):
        _prefetch(pool, batch, n + AHEAD, min(n + AHEAD + 1, end), dim)
        if n == first:
            _put(pool, batch, n, target, dim)
        else:
            _add(pool, batch, n, target, dim)
    if batch.features_fk[f, POOLING] == MEAN and last - first > 1:
        divide(target, target, np.float32(last - first), dim)


@device
def _sequence(pool: Pool, batch: Batch, f: int, start: int, end: int) -> None:
    """The positions start .. end of a feature that is not pooled."""
    dim, stride = batch.features_fk[f, DIM], batch.features_fk[f, STRIDE_BYTES]
    for n in range(start, end):
        _prefetch(pool, batch, n + AHEAD, min(n + AHEAD + 1, end), dim)
        target = batch.features_fk[f, ADDRESS] + (n - batch.features_fk[f, START]) * stride
        _put(pool, batch, n, target, dim)


@device
def _block(pool: Pool, batch: Batch, first: int, last: int) -> None:
    """The samples first .. last of every feature."""
    features = batch.features_fk.shape[0]
    for f in range(-1, features):
        if f + 1 < features:
            start = batch.offsets_fb[f + 1, first]
            end = min(start + AHEAD, batch.offsets_fb[f + 1, last])
            _prefetch(pool, batch, start, end, batch.features_fk[f + 1, DIM])
        if f < 0:
            continue
        end = batch.offsets_fb[f, last]
        if batch.features_fk[f, POOLING] == NONE:
            _sequence(pool, batch, f, batch.offsets_fb[f, first], end)
        else:
            for b in range(first, last):
                _bag(pool, batch, f, b, end)


@parallel_kernel
def gather(pool: Pool, batch: Batch, threads: int) -> None:
    """Pool every feature's rows into its matrix. Each number is computed by one thread, in an order that is the batch's own."""
    taken = np.zeros(1, np.int64)
    samples = batch.offsets_fb.shape[1] - 1
    for _ in prange(threads):
        first = take(taken, 0, SAMPLES)
        while first < samples:
            _block(pool, batch, first, min(first + SAMPLES, samples))
            first = take(taken, 0, SAMPLES)
