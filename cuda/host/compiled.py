"""How functions of this room are compiled: ``kernel`` is called from Python, ``device`` from kernels.

Both release the GIL, follow IEEE arithmetic (no fastmath: nothing is reassociated or contracted) and divide by zero as numpy does.
A ``prange`` body only calls ``device`` functions: writes to an array inside a NamedTuple got lost when they stood in the body itself.
Nothing is compiled at import; ``warm_up`` compiles everything at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from cuda.host.cache import our_cache
from cuda.host.numba_types import runtime

Function = TypeVar("Function", bound=Callable[..., Any])
KERNELS: list[Any] = []
"""Every kernel of the room, for ``warm_up`` to count."""


def kernel(function: Function) -> Function:
    """Compile for Python callers, cached on disk."""
    return _cached(function, parallel=False)


def parallel_kernel(function: Function) -> Function:
    """The same; its ``prange`` loops run on Numba's threads."""
    return _cached(function, parallel=True)


def device(function: Function) -> Function:
    """Compile as a part of kernels; kept on disk inside them only."""
    compiled: Function = runtime.njit(function, nogil=True, error_model="numpy", forceinline=True)
    return compiled


def seldom(function: Function) -> Function:
    """``device`` for what most batches do not run: a call, so that it takes no registers from the loop around it."""
    compiled: Function = runtime.njit(function, nogil=True, error_model="numpy")
    return compiled


def _cached(function: Function, *, parallel: bool) -> Function:
    with our_cache():
        compiled: Function = runtime.njit(function, nogil=True, cache=True, error_model="numpy", parallel=parallel)
    KERNELS.append(compiled)
    return compiled
