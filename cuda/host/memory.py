"""Large zeroed memory for the pool: aligned to cache lines, on huge pages where the system has them.

Rows are read at random, so with 4 KiB pages nearly each row would cost a walk of the page table.
"""

from __future__ import annotations

import contextlib
import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cuda.errors import PoolTooLarge


def available_bytes() -> int:
    """Memory that this process may still take: what the machine has, and what its control group allows."""
    limits = [_meminfo_available()]
    group = Path("/sys/fs/cgroup")
    limit, used = _number(group / "memory.max"), _number(group / "memory.current")
    if limit is not None and used is not None:
        limits.append(limit - used)
    return min(limits)


def _meminfo_available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 1 << 62
    sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return sizes[0] if sizes else 1 << 62


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def allocate(num_slots: int, slot_bytes: int) -> npt.NDArray[np.uint8]:
    """Zeroed uint8 [num_slots, slot_bytes], starting on a page. Pages are taken as they are first written.

    Raises PoolTooLarge (a MemoryError) that says how many rows would fit.
    """
    size = max(num_slots * slot_bytes, mmap.PAGESIZE)
    if size > available_bytes():
        raise PoolTooLarge(num_slots, slot_bytes, available_bytes())
    try:
        region = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError, ValueError) as error:
        raise PoolTooLarge(num_slots, slot_bytes, available_bytes()) from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages is only slower
            region.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(region, dtype=np.uint8, count=num_slots * slot_bytes).reshape(num_slots, slot_bytes)
