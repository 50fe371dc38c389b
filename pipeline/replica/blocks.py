"""Where the rows of one table lie in memory: blocks that never move, so that readers need not wait while it grows.

Legend: k blocks; ``kernels`` says what a row is.
"""

from __future__ import annotations

import contextlib
import mmap

import numpy as np
import numpy.typing as npt

from pipeline.replica.kernels import BLOCK_ROWS, row_stride

Int64s = npt.NDArray[np.int64]
HUGE_BYTES = 2 << 20
"""A block of at least so much asks for huge pages: rows lie anywhere, and each would miss the processor's table of pages."""


class Blocks:
    """``rows_k``: the address of each block, int64 [k]. What was read of it stays valid: blocks are never freed."""

    def __init__(self, dim: int, extra_bytes: int) -> None:
        self.stride = row_stride(dim, extra_bytes)
        self.rows_k: Int64s = np.empty(0, dtype=np.int64)
        self._blocks: list[npt.NDArray[np.uint8]] = []

    def reserve(self, places: int) -> None:
        """Have room for places below this."""
        missing = -(-places // BLOCK_ROWS) - len(self._blocks)
        if missing > 0:
            self._blocks += [_region(BLOCK_ROWS * self.stride) for _ in range(missing)]
            self.rows_k = np.array([block.ctypes.data for block in self._blocks], dtype=np.int64)


def _region(nbytes: int) -> npt.NDArray[np.uint8]:
    """Memory for a block; large pages begin where it begins."""
    if nbytes < HUGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.empty(nbytes, dtype=np.uint8)
    region = mmap.mmap(-1, nbytes + HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    whole: npt.NDArray[np.uint8] = np.frombuffer(region, dtype=np.uint8)
    begin = -whole.ctypes.data % HUGE_BYTES
    with contextlib.suppress(OSError):  # a kernel without huge pages is only slower
        # Not the rest of the block: a huge page there would take memory that no row uses.
        region.madvise(mmap.MADV_HUGEPAGE, begin, nbytes // HUGE_BYTES * HUGE_BYTES)
    return whole[begin : begin + nbytes]
