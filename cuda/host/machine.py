"""What kernels ask of the processor itself: prefetches, plain pointers, and a counter that threads share."""

from __future__ import annotations

from typing import Any

from cuda.host.compiled import device
from cuda.host.numba_types import cgutils, intrinsic, ir, llvm_function, llvm_loop, types
from cuda.plan import Int64s

_BYTE_POINTER = ir.IntType(8).as_pointer()
_INT32 = ir.IntType(32)
LINE_BYTES = 64
_READ, _WRITE, _DATA = 0, 1, 1
_KEEP, _PASS_BY = 3, 0


def _prefetch(intent: int, keep: int) -> Any:
    @intrinsic
    def prefetch(typingctx: Any, address: Any, num_bytes: Any) -> Any:
        del typingctx, address, num_bytes

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            del signature
            kind = ir.FunctionType(ir.VoidType(), [_BYTE_POINTER, _INT32, _INT32, _INT32])
            function = llvm_function(builder, kind, "llvm.prefetch.p0")
            hints = [ir.Constant(_INT32, value) for value in (intent, keep, _DATA)]
            end = builder.add(args[0], args[1])
            with llvm_loop(builder, args[0], end, LINE_BYTES) as line:
                builder.call(function, [builder.inttoptr(line, _BYTE_POINTER), *hints])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return prefetch


prefetch_read = _prefetch(_READ, _KEEP)
"""``(address, num_bytes)``: ask for the cache lines of some bytes. Any address is legal."""
prefetch_write = _prefetch(_WRITE, _KEEP)
"""The same for bytes that will be written."""
prefetch_once = _prefetch(_READ, _PASS_BY)
"""The same for bytes that nobody needs after they were read: they leave the caches to others."""


@intrinsic
def fence(typingctx: Any) -> Any:
    """Let other threads see what was written before, also what went past the caches."""
    del typingctx

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del signature, args
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def pointer(typingctx: Any, array: Any) -> Any:
    """An array's data as a pointer that is indexed like a flat array but owns nothing.

    Kernels take NamedTuples of arrays and turn them into the same NamedTuples of pointers before their loops: each use of an array
    in a NamedTuple costs two atomic counts of references, a hundred times what the use itself does. The caller owns the arrays.
    """
    del typingctx

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return cgutils.create_struct_proxy(signature.args[0])(context, builder, value=args[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def fetch_add(typingctx: Any, address: Any, amount: Any) -> Any:
    """Add to the int64 at an address and return what was there before, in one indivisible step."""
    del typingctx, address, amount

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del context, signature
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "monotonic")

    return types.int64(types.int64, types.int64), codegen


@device
def take(counters: Int64s, index: int, amount: int) -> Any:
    """Add to one of a kernel's shared counters and return what it was: how threads share out work.

    Takes the array, not its address: Numba frees an array of its own after the array's last use, whoever still holds its address.
    """
    return fetch_add(counters.ctypes.data + 8 * index, amount)


@intrinsic
def put_word(typingctx: Any, address: Any, word: Any) -> Any:
    """Store an int64 at an address that need not be aligned."""
    del typingctx, address, word

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del signature
        builder.store(args[1], builder.inttoptr(args[0], ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def put_bytes(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy bytes from one address to another. They do not overlap and need not be aligned."""
    del typingctx, target, source, count

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del signature
        target, source = (builder.inttoptr(address, _BYTE_POINTER) for address in args[:2])
        cgutils.raw_memcpy(builder, target, source, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def call_rule(typingctx: Any, address: Any, row: Any, state: Any, gradient: Any, dim: Any, hyper: Any) -> Any:
    """Call the compiled rule at an address, see ``rule_table``."""
    del typingctx, address, row, state, gradient, dim, hyper

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del signature
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 5)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), codegen
