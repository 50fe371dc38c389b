"""Kernels that move whole rows between slots and arrays. A slot's row starts at ``base + slot * stride`` bytes.

Legend: M slots, S slots of the pool, b bytes of a row: a multiple of 4, so that rows can be moved as float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import prange

from cuda.host.compiled import device, kernel, parallel_kernel
from cuda.host.machine import pointer, prefetch_read, prefetch_write, put_bytes, take
from cuda.host.vector import ONE, copy
from cuda.plan import Int32s, Int64s

AHEAD = 8
CHUNK = 256
VERSION_BYTES = 8
MAX_BYTES = 1024
"""Of a longer row, the processor's own prefetcher sees the rest."""

RowBytes = npt.NDArray[np.uint8]


class Pool(NamedTuple):
    """The rows of all tables, and their versions."""

    base: int
    """Address of slot 0's row."""
    stride: int
    """Bytes from one slot's row to the next."""
    versions: Int64s
    """The version of a slot stands at ``slot * version_step``."""
    version_step: int


def make_pool(rows_sb: RowBytes, row_bytes: int) -> Pool:
    """Describe zeroed memory [S, stride] as a pool. The caller keeps it.

    Versions lie behind the rows where the stride leaves room, so that a row and its version share a cache line; else by themselves.
    """
    num_slots, stride = rows_sb.shape
    if stride - row_bytes < VERSION_BYTES:
        return Pool(rows_sb.ctypes.data, stride, np.zeros(num_slots, np.int64), 1)
    words = rows_sb.reshape(-1).view(np.int64)
    return Pool(rows_sb.ctypes.data, stride, words[row_bytes // VERSION_BYTES :], stride // VERSION_BYTES)


@device
def pool_pointers(pool: Pool) -> Pool:
    """The pool as the loops of kernels take it, see ``machine.pointer``."""
    return Pool(pool.base, pool.stride, pointer(pool.versions), pool.version_step)


@device
def row_address(pool: Pool, slot: int) -> Any:
    return pool.base + np.int64(slot) * pool.stride


@device
def prefetch_row(address: int, num_bytes: int) -> None:
    """Ask for a row that will be read."""
    prefetch_read(address, min(num_bytes, MAX_BYTES))


@device
def prefetch_row_to_write(address: int, num_bytes: int) -> None:
    """Ask for a row that will be changed."""
    prefetch_write(address, min(num_bytes, MAX_BYTES))


@device
def _read_some(pool: Pool, slots_m: Int32s, rows_mb: RowBytes, versions_m: Int64s, first: int, last: int) -> None:
    width, versions, step = rows_mb.shape[1], pool.versions, pool.version_step
    for m in range(first, last):
        prefetch_row(row_address(pool, slots_m[min(m + AHEAD, last - 1)]), width)
        copy(rows_mb.ctypes.data + m * width, row_address(pool, slots_m[m]), ONE, width >> 2)
        versions_m[m] = versions[slots_m[m] * step]


@device
def _write_some(pool: Pool, slots_m: Int32s, rows_mb: RowBytes, versions_m: Int64s, first: int, last: int) -> None:
    width, versions, step = rows_mb.shape[1], pool.versions, pool.version_step
    for m in range(first, last):
        prefetch_row_to_write(row_address(pool, slots_m[min(m + AHEAD, last - 1)]), width)
        copy(row_address(pool, slots_m[m]), rows_mb.ctypes.data + m * width, ONE, width >> 2)
        versions[slots_m[m] * step] = versions_m[m]


@kernel
def read_few_rows(pool: Pool, slots_m: Int32s, rows_mb: RowBytes, versions_m: Int64s) -> None:
    """``read_rows`` on the calling thread."""
    _read_some(pool, slots_m, rows_mb, versions_m, 0, slots_m.shape[0])


@kernel
def write_few_rows(pool: Pool, slots_m: Int32s, rows_mb: RowBytes, versions_m: Int64s) -> None:
    """``write_rows`` on the calling thread."""
    _write_some(pool, slots_m, rows_mb, versions_m, 0, slots_m.shape[0])


@kernel
def read_apart(pool: Pool, slots_n: Int32s, head_nb: RowBytes, tail_nb: RowBytes, versions_n: Int64s) -> None:
    """Copy the first bytes of each slot's row to ``head_nb``, those behind them to ``tail_nb``, and its version. Slot -1: nothing."""
    head, tail, last = head_nb.shape[1], tail_nb.shape[1], slots_n.shape[0] - 1
    versions, step = pool.versions, pool.version_step
    for n in range(slots_n.shape[0]):
        prefetch_row(row_address(pool, slots_n[min(n + AHEAD, last)]), head + tail)
        if slots_n[n] < 0:
            continue
        address = row_address(pool, slots_n[n])
        copy(head_nb.ctypes.data + n * head, address, ONE, head >> 2)
        copy(tail_nb.ctypes.data + n * tail, address + head, ONE, tail >> 2)
        versions_n[n] = versions[slots_n[n] * step]


@parallel_kernel
def read_rows(pool: Pool, slots_m: Int32s, rows_mb: RowBytes, versions_m: Int64s, threads: int) -> None:
    """Copy the first bytes of each slot's row to ``rows_mb``, and its version."""
    taken = np.zeros(1, np.int64)
    for _ in prange(threads):
        first = take(taken, 0, CHUNK)
        while first < slots_m.shape[0]:
            _read_some(pool, slots_m, rows_mb, versions_m, first, min(first + CHUNK, slots_m.shape[0]))
            first = take(taken, 0, CHUNK)


@parallel_kernel
def write_rows(pool: Pool, slots_m: Int32s, rows_mb: RowBytes, versions_m: Int64s, threads: int) -> None:
    """Copy ``rows_mb`` to the front of each slot's row, and set its version. Slots are distinct."""
    taken = np.zeros(1, np.int64)
    for _ in prange(threads):
        first = take(taken, 0, CHUNK)
        while first < slots_m.shape[0]:
            _write_some(pool, slots_m, rows_mb, versions_m, first, min(first + CHUNK, slots_m.shape[0]))
            first = take(taken, 0, CHUNK)


@device
def _write_parts(pool: Pool, slots_m: Int32s, start: int, values_mb: RowBytes, first: int, last: int) -> None:
    width = values_mb.shape[1]
    for m in range(first, last):
        prefetch_write(row_address(pool, slots_m[min(m + AHEAD, last - 1)]) + start, width)
        put_bytes(row_address(pool, slots_m[m]) + start, values_mb.ctypes.data + m * width, width)


@kernel
def write_few_parts(pool: Pool, slots_m: Int32s, start: int, values_mb: RowBytes) -> None:
    """``write_parts`` on the calling thread."""
    _write_parts(pool, slots_m, start, values_mb, 0, slots_m.shape[0])


@parallel_kernel
def write_parts(pool: Pool, slots_m: Int32s, start: int, values_mb: RowBytes, threads: int) -> None:
    """Copy ``values_mb`` to byte ``start`` of each slot's row. Slots are distinct."""
    taken = np.zeros(1, np.int64)
    for _ in prange(threads):
        first = take(taken, 0, CHUNK)
        while first < slots_m.shape[0]:
            _write_parts(pool, slots_m, start, values_mb, first, min(first + CHUNK, slots_m.shape[0]))
            first = take(taken, 0, CHUNK)
