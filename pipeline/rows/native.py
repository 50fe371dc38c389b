"""What kernels ask of the machine: a pointer from an address, and a cache line ahead of its use."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_WRITE, _KEEP, _DATA = 1, 3, 1


def _pointer(_context: Any, address: Any) -> Any:
    def make(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), make


def _ask_for(_context: Any, address: Any) -> Any:
    def make(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        int32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, int32, int32, int32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
        hints = [ir.Constant(int32, hint) for hint in (_WRITE, _KEEP, _DATA)]
        builder.call(function, [builder.inttoptr(arguments[0], cgutils.voidptr_t), *hints])
        return context.get_dummy_value()

    return types.void(address), make


pointer: Any = intrinsic(_pointer)
"""int64 address -> pointer, for ``numba.carray``."""
ask_for: Any = intrinsic(_ask_for)
"""Have the cache line at an int64 address brought near. Any address is legal."""
