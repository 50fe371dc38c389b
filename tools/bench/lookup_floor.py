"""The least that any program does for a step of the lookup benchmark, in a process of its own: rows out, gradients in.

Each id's row is copied to where its bag is wanted; each distinct row's gradients are added up and the row is changed where it lies.
Nothing is found, counted, pinned or versioned: where the rows lie, and which ids are the same, was worked out before. Two loops, on
all threads, that ask for memory ahead of its use.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numba import prange

from cuda.host.compiled import device, parallel_kernel
from cuda.host.machine import fence, prefetch_once, prefetch_read, prefetch_write, take
from cuda.host.memory import allocate
from cuda.host.recycle import aligned_bytes
from cuda.host.threads import use_threads
from cuda.host.vector import ONE, add, copy, copy_past_caches, subtract_scaled
from tools.bench.lookup_work import BATCH, DIM, LR, ROWS, TABLES, make_work, serve

AHEAD, CHUNK, ROW = 16, 512, DIM * 4
"""Rows asked for ahead; rows that a thread takes at once; bytes of a row."""


@parallel_kernel
def _copy_out(rows: int, slots_n: Any, out: int, threads: int) -> None:
    """``rows``, ``out`` (a multiple of 64) and the like are addresses."""
    taken = np.zeros(1, np.int64)
    for _ in prange(threads):
        first = take(taken, 0, CHUNK)
        while first < slots_n.shape[0]:
            _copy_some(rows, slots_n, out, first, min(first + CHUNK, slots_n.shape[0]))
            fence()
            first = take(taken, 0, CHUNK)


@device
def _copy_some(rows: int, slots_n: Any, out: int, first: int, last: int) -> None:
    for n in range(first, last):
        prefetch_read(rows + slots_n[min(n + AHEAD, last - 1)] * ROW, ROW)
        copy_past_caches(out + n * ROW, rows + slots_n[n] * ROW, ONE, DIM)


@parallel_kernel
def _change(rows: int, slots_u: Any, starts_u: Any, places_n: Any, gradients: int, scratch: int, threads: int) -> None:
    taken = np.zeros(1, np.int64)
    for worker in prange(threads):
        first = take(taken, 0, CHUNK)
        while first < slots_u.shape[0]:
            last = min(first + CHUNK, slots_u.shape[0])
            _change_some(rows, slots_u, starts_u, places_n, gradients, scratch + worker * ROW, first, last)
            first = take(taken, 0, CHUNK)


@device
def _change_some(
    rows: int, slots_u: Any, starts_u: Any, places_n: Any, gradients: int, total: int, first: int, last: int
) -> None:
    end = starts_u[last] - 1
    for u in range(first, last):
        prefetch_write(rows + slots_u[min(u + AHEAD, last - 1)] * ROW, ROW)
        gradient = gradients + places_n[starts_u[u]] * ROW
        for place in range(starts_u[u], starts_u[u + 1]):
            prefetch_once(gradients + places_n[min(place + AHEAD, end)] * ROW, ROW)
            if place == starts_u[u] + 1:
                copy(total, gradient, ONE, DIM)
                gradient = total
            if place > starts_u[u]:
                add(total, gradients + places_n[place] * ROW, ONE, DIM)
        subtract_scaled(rows + slots_u[u] * ROW, gradient, np.float32(LR), DIM)


class Floor:
    """``run`` as of the two sides."""

    def __init__(self, distribution: str, steps: int, threads: int) -> None:
        self._threads = threads
        work = make_work(distribution, steps)
        self._rows_nb = allocate(TABLES * ROWS, ROW)
        self._rows_nb[:] = 0
        # As the peer's and ours lie: bag by bag, the tables of a bag beside each other.
        self._gradients_b, self._out_b = (aligned_bytes(BATCH * TABLES * ROW) for _ in range(2))
        self._gradients_b[:] = work.gradient_bd.reshape(-1).view(np.uint8)
        self._scratch_b = aligned_bytes(threads * ROW)
        first_t = (np.arange(TABLES) * ROWS)[:, None]
        self._steps = [_found((step_n.reshape(TABLES, BATCH) + first_t).T.reshape(-1)) for step_n in work.steps_sn]
        self._step = 0
        self.knobs: dict[str, object] = {}

    def run(self, steps: int) -> None:
        for _ in range(steps):
            slots_n, slots_u, starts_u, places_n = self._steps[self._step % len(self._steps)]
            self._step += 1
            use_threads(self._threads)
            rows, out, gradients, scratch = self._addresses()
            _copy_out(rows, slots_n, out, self._threads)
            _change(rows, slots_u, starts_u, places_n, gradients, scratch, self._threads)

    def _addresses(self) -> list[int]:
        arrays = (self._rows_nb, self._out_b, self._gradients_b, self._scratch_b)
        return [array.ctypes.data for array in arrays]


def _found(slots_n: Any) -> tuple[Any, Any, Any, Any]:
    """The slots, the distinct ones, and where in the gradients those of each are."""
    slots_u, counts_u = np.unique(slots_n, return_counts=True)
    return slots_n, slots_u, np.concatenate([[0], np.cumsum(counts_u)]), np.argsort(slots_n, kind="stable")


if __name__ == "__main__":
    serve(Floor(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
