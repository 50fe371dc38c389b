"""Memory for arrays that live for one batch, used again once the batch is gone.

Arrays of some hundred kilobytes come from the system and go back to it, and every page of a fresh one costs a fault: more time than
deduplication itself. Here a block returns to the free list when the last array on it is collected.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

ALIGNMENT = 64
Bytes = npt.NDArray[np.uint8]


class Recycler:
    """Hands out uninitialised memory. Keeps at most ``max_idle_bytes`` that nobody uses. Safe from any thread."""

    def __init__(self, max_idle_bytes: int = 1 << 28) -> None:
        self._max_idle_bytes = max_idle_bytes
        self._idle: dict[int, list[Bytes]] = {}
        self.idle_bytes = 0
        self._lock = threading.RLock()  # a collection, and with it _give_back, may come inside _take

    def arrays(self, *shapes: tuple[Any, int]) -> tuple[npt.NDArray[Any], ...]:
        """One array for each (dtype, length), each aligned to 64 bytes, all on one block."""
        sizes = [-(-np.dtype(dtype).itemsize * length // ALIGNMENT) * ALIGNMENT for dtype, length in shapes]
        memory = self._take(sum(sizes))
        arrays, start = [], 0
        for (dtype, length), size in zip(shapes, sizes, strict=True):
            arrays.append(np.frombuffer(memory, dtype, length, start))
            start += size
        return tuple(arrays)

    def _take(self, size: int) -> Any:
        kind = max(1 << 12, 1 << max(0, size - 1).bit_length())
        with self._lock:
            blocks = self._idle.get(kind)
            block = blocks.pop() if blocks else None
            self.idle_bytes -= kind if block is not None else 0
        if block is None:
            block = aligned_bytes(kind)
        memory = (ctypes.c_uint8 * kind).from_buffer(block)  # type: ignore[arg-type]
        weakref.finalize(memory, self._give_back, block).atexit = False
        return memory

    def _give_back(self, block: Bytes) -> None:
        with self._lock:
            if self.idle_bytes + block.nbytes <= self._max_idle_bytes:
                self._idle.setdefault(block.nbytes, []).append(block)
                self.idle_bytes += block.nbytes


def aligned_bytes(size: int) -> Bytes:
    """uint8 [size], uninitialised, starting on a multiple of 64 bytes."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]
