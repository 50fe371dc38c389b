"""The kernel that reads rows and pools them into the features' matrices. The arithmetic stands at ``Backend.gather_pool``.

Work is shared out in blocks of samples, all features of a block together: when the matrices are parts of one wide matrix, its lines
are then written in order. Within a block the rows of the next feature are asked for before those of this one are used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from cuda.host.batch import Batch, batch_pointers, offset
from cuda.host.compiled import device, parallel_kernel
from cuda.host.machine import fence, take
from cuda.host.narrow import weight_bytes, weights_of, whole
from cuda.host.rows import Pool, RowBytes, pool_pointers, prefetch_row, row_address
from cuda.host.vector import ONE, add, add_scaled, clear, copy, copy_past_caches, divide, scale
from cuda.plan import MEAN, NONE

SAMPLES = 16
AHEAD = 16
"""Rows are asked for this many positions before they are used."""


@device
def _row(pool: Pool, batch: Batch, n: int) -> Any:
    """The address of position n's row."""
    return row_address(pool, batch.slots_u[batch.inverse_n[n]])


@device
def _source(pool: Pool, batch: Batch, f: int, n: int, room: int) -> Any:
    """The address of position n's weights as float32: in the row itself, or widened in ``room``."""
    dim = batch.dims_f[f]
    return weights_of(_row(pool, batch, n), batch.kinds_f[f], dim, room + 4 * whole(dim), room)


@device
def _prefetch(pool: Pool, batch: Batch, start: int, end: int, f: int) -> None:
    for n in range(start, end):
        prefetch_row(_row(pool, batch, n), weight_bytes(batch.dims_f[f], batch.kinds_f[f]))


@device
def _prefetch_feature(pool: Pool, batch: Batch, f: int, first: int, last: int) -> None:
    """Ask for the first rows that the samples first .. last of a feature use."""
    start = offset(batch, f, first)
    _prefetch(pool, batch, start, min(start + AHEAD, offset(batch, f, last)), f)


@device
def _put(batch: Batch, n: int, source: int, target: int, dim: int) -> None:
    """target = w_n * row_n"""
    if batch.weighted:
        scale(target, source, batch.weights_n[n], dim)
    else:
        copy(target, source, ONE, dim)


@device
def _add(batch: Batch, n: int, source: int, target: int, dim: int) -> None:
    """target += w_n * row_n"""
    if batch.weighted:
        add_scaled(target, source, batch.weights_n[n], dim)
    else:
        add(target, source, ONE, dim)


@device
def _bag(pool: Pool, batch: Batch, f: int, b: int, end: int, room: int) -> None:
    """One bag of a pooled feature. ``end``: where the block's positions of this feature end."""
    dim = batch.dims_f[f]
    target = batch.addresses_f[f] + b * batch.strides_f[f]
    first, last = offset(batch, f, b), offset(batch, f, b + 1)
    if first == last:
        clear(target, target, ONE, dim)
        return
    for n in range(first, last):
        _prefetch(pool, batch, n + AHEAD, min(n + AHEAD + 1, end), f)
        source = _source(pool, batch, f, n, room)
        if last - first == 1 and batch.past_caches and not batch.weighted:
            copy_past_caches(target, source, ONE, dim)
        elif n == first:
            _put(batch, n, source, target, dim)
        else:
            _add(batch, n, source, target, dim)
    if batch.poolings_f[f] == MEAN and last - first > 1:
        divide(target, target, np.float32(last - first), dim)


@device
def _sequence(pool: Pool, batch: Batch, f: int, start: int, end: int, room: int) -> None:
    """The positions start .. end of a feature that is not pooled."""
    dim = batch.dims_f[f]
    for n in range(start, end):
        _prefetch(pool, batch, n + AHEAD, min(n + AHEAD + 1, end), f)
        target = batch.addresses_f[f] + (n - batch.starts_f[f]) * batch.strides_f[f]
        _put(batch, n, _source(pool, batch, f, n, room), target, dim)


@device
def _block(pool: Pool, batch: Batch, num_features: int, first: int, last: int, room: int) -> None:
    """The samples first .. last of every feature."""
    _prefetch_feature(pool, batch, 0, first, last)
    for f in range(num_features):
        if f + 1 < num_features:
            _prefetch_feature(pool, batch, f + 1, first, last)
        end = offset(batch, f, last)
        if batch.poolings_f[f] == NONE:
            _sequence(pool, batch, f, offset(batch, f, first), end, room)
        else:
            for b in range(first, last):
                _bag(pool, batch, f, b, end, room)


@parallel_kernel
def gather(pool: Pool, batch: Batch, rooms_wb: RowBytes, threads: int) -> None:
    """Pool every feature's rows into its matrix. Each number is computed by one thread, in an order that is the batch's own.

    ``rooms_wb`` [threads, bytes]: see ``TableSet.rooms``.
    """
    taken = np.zeros(1, np.int64)
    for worker in prange(threads):
        first = take(taken, 0, SAMPLES)
        while first < batch.num_samples:
            last = min(first + SAMPLES, batch.num_samples)
            room = rooms_wb.ctypes.data + worker * rooms_wb.shape[1]
            _block(pool_pointers(pool), batch_pointers(batch), batch.dims_f.shape[0], first, last, room)
            fence()
            first = take(taken, 0, SAMPLES)
