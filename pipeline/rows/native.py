"""What kernels ask of the machine: memory by its address, and a cache line ahead of its use."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_READ, _WRITE, _KEEP, _DATA = 0, 1, 3, 1
_WORD = ir.IntType(64)


def _pointer(_context: Any, address: Any) -> Any:
    def make(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), make


def _asking(use: int) -> Any:
    def ask(_context: Any, address: Any) -> Any:
        def make(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            int32 = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, int32, int32, int32])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
            hints = [ir.Constant(int32, hint) for hint in (use, _KEEP, _DATA)]
            builder.call(function, [builder.inttoptr(arguments[0], cgutils.voidptr_t), *hints])
            return context.get_dummy_value()

        return types.void(address), make

    return ask


def _read_word(_context: Any, _address: Any) -> Any:
    def make(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], _WORD.as_pointer()))

    return types.int64(types.int64), make


def _write_word(_context: Any, _address: Any, _word: Any) -> Any:
    def make(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], _WORD.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), make


pointer: Any = intrinsic(_pointer)
"""int64 address -> pointer, for ``numba.carray``."""
ask_for: Any = intrinsic(_asking(_WRITE))
"""Have the cache line at an int64 address brought near, to be written. Any address is legal."""
ask_to_read: Any = intrinsic(_asking(_READ))
"""The same, to be read: other cores may keep it too."""
read_word: Any = intrinsic(_read_word)
"""The int64 at an int64 address, a multiple of 8."""
write_word: Any = intrinsic(_write_word)
"""Write an int64 to an int64 address, a multiple of 8."""
