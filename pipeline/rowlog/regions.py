"""Memory by the region: zeroes at a fixed address, which take memory only as they are written, page by page."""

from __future__ import annotations

import mmap
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.rowlog.errors import IndexMemory

HUGE_PAGE: Final = 1 << 21
REGIONS_AT_ONCE: Final = 32


class Regions:
    """Regions of one size, rounded up to whole pages. They live until this object goes."""

    def __init__(self, region_bytes: int) -> None:
        self.region_bytes = -(-region_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._homes: dict[int, tuple[mmap.mmap, int]] = {}
        """Of each region, by its address: the mapping it is a part of, and where it begins there."""
        self._spare: list[int] = []
        self._huge: set[int] = set()

    def take(self) -> int:
        """The address of a region of zeroes. Raises IndexMemory."""
        if not self._spare:
            self._map(REGIONS_AT_ONCE)
        return self._spare.pop()

    def map_filled(self, count: int) -> None:
        """The next ``count`` regions will be filled soon: they may take huge pages, so that the first byte takes all."""
        size = count * self.region_bytes // HUGE_PAGE * HUGE_PAGE
        if size and hasattr(mmap, "MADV_HUGEPAGE"):
            mapping, start = self._map(count)
            mapping.madvise(mmap.MADV_HUGEPAGE, start, size)
            self._huge.update(self._spare[-(size // self.region_bytes) :])

    def release(self, address: int, written_bytes: int) -> None:
        """Give back the whole pages behind the first ``written_bytes``: what is there is zero, or free anyway."""
        mapping, begin = self._homes[address]
        if address in self._huge:
            mapping.madvise(mmap.MADV_NOHUGEPAGE, begin, self.region_bytes)
            self._huge.discard(address)
        start = -(-written_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and start < self.region_bytes:
            mapping.madvise(mmap.MADV_DONTNEED, begin + start, self.region_bytes - start)

    def held_bytes(self, addresses_k: npt.NDArray[np.int64], written_k: npt.NDArray[np.int64]) -> int:
        """The memory that regions take of which the first ``written_k`` bytes were written."""
        pages_k = -(-written_k // mmap.PAGESIZE) * mmap.PAGESIZE
        huge_k = np.isin(addresses_k, np.array(sorted(self._huge), dtype=np.int64)) & (written_k > 0)
        return int(np.where(huge_k, self.region_bytes, pages_k).sum())

    def _map(self, count: int) -> tuple[mmap.mmap, int]:
        """Make ``count`` more regions; the first, taken next, begins at a huge page. The mapping, and where that is."""
        size = count * self.region_bytes + HUGE_PAGE
        try:
            mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise IndexMemory(size) from error
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            mapping.madvise(mmap.MADV_NOHUGEPAGE)
        address = int(np.frombuffer(mapping, dtype=np.uint8).ctypes.data)
        first = -address % HUGE_PAGE
        starts = range(first, first + count * self.region_bytes, self.region_bytes)
        self._homes.update((address + start, (mapping, start)) for start in starts)
        self._spare += [address + start for start in reversed(starts)]
        return mapping, first
