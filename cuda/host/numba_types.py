"""Numba and llvmlite as untyped values: their annotations, where they have any, describe the interpreter's view of compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import llvmlite.ir
import numba
import numba.core.caching
import numba.core.cgutils
import numba.extending

ir: Any = llvmlite.ir
llvm: Any = llvmlite.binding
types: Any = numba.types
cgutils: Any = numba.core.cgutils
caching: Any = numba.core.caching
runtime: Any = numba
"""``set_num_threads``, ``threading_layer`` and ``config``."""


def intrinsic(function: Callable[..., Any]) -> Any:
    """A function whose LLVM code is written by hand. Compiled callers leave out the first argument, the typing context."""
    return numba.extending.intrinsic(function)


def llvm_function(builder: Any, kind: Any, name: str) -> Any:
    """An LLVM intrinsic, declared in the module that is being built."""
    return cgutils.get_or_insert_function(builder.module, kind, name)
