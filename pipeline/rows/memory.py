"""Memory of rows goes and comes in large blocks; the C allocator is asked to keep those that were freed."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory(limit_bytes: int = 256 << 20) -> None:
    """Ask the C allocator to reuse large freed blocks instead of returning each to the kernel: no page faults every step."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, min(limit_bytes, 2**31 - 1))
        libc.mallopt(_M_TRIM_THRESHOLD, min(2 * limit_bytes, 2**31 - 1))
