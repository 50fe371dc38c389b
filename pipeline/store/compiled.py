"""How this room's functions are compiled: without the GIL, kept on disk by the rules of ``cuda.host.cache``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

from cuda.host.cache import our_cache


def kernel(function: Callable[..., Any]) -> Any:
    """Compile for Python callers, when it is first called."""
    with our_cache():
        return numba.njit(function, nogil=True, cache=True)


def parallel_kernel(function: Callable[..., Any]) -> Any:
    """The same; its ``prange`` loops run on the threads of ``cuda.host.threads``, and only call ``device`` functions."""
    with our_cache():
        return numba.njit(function, nogil=True, cache=True, parallel=True)


def device(function: Callable[..., Any]) -> Any:
    """Compile as a part of kernels."""
    return numba.njit(function, nogil=True, forceinline=True)
