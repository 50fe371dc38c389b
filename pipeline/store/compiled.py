"""How this room's functions are compiled: without the GIL, kept on disk by the rules of ``cuda.host.cache``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

from cuda.host.cache import our_cache

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile for Python callers, when it is first called."""
    with our_cache():
        compiled: Function = numba.njit(function, nogil=True, cache=True)
    return compiled
