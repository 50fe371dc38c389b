"""Arithmetic on rows of float32 at raw addresses, 16 numbers at a time, as LLVM vector code.

Rules: every product, sum, difference and quotient is rounded to float32 on its own (no fused multiply-add, no reassociation), so a
twin on another device can give the same bits. Addresses are in bytes and need the alignment of a float32 only. A row may have any
length; the last ``dim % 16`` numbers go through masked loads and stores, so nothing behind a row is read or written.

Why not loops over arrays: LLVM cannot know that two addresses do not overlap and would check at run time, row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from cuda.host.numba_types import intrinsic, ir, llvm_function, llvm_loop, types

LANES: Final = 16

_FLOAT = ir.FloatType()
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)
_POINTER = _VECTOR.as_pointer()


class _Operands(NamedTuple):
    """LLVM vectors; what an operation does not read is zero."""

    target: Any
    source: Any
    factor: Any


Build = Callable[[Any, _Operands], Any]
"""(builder, operands) -> the target's new vector."""


def _zeros() -> Any:
    return ir.Constant(_VECTOR, [0.0] * LANES)


def _splat(builder: Any, scalar: Any, vector: Any = _VECTOR) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
    zero_lanes = ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
    return builder.shuffle_vector(first, undefined, zero_lanes)


def _pointer(builder: Any, address: Any, start: Any) -> Any:
    offset = builder.mul(start, ir.Constant(_INT64, 4))
    return builder.inttoptr(builder.add(address, offset), _POINTER)


def _tail_mask(builder: Any, remaining: Any) -> Any:
    """The lanes below ``remaining``."""
    lanes = ir.Constant(ir.VectorType(_INT64, LANES), list(range(LANES)))
    return builder.icmp_signed("<", lanes, _splat(builder, remaining, ir.VectorType(_INT64, LANES)))


def _load(builder: Any, pointer: Any, mask: Any | None) -> Any:
    """Lanes outside the mask are zero."""
    if mask is None:
        return builder.load(pointer, align=4)
    kind = ir.FunctionType(_VECTOR, [_POINTER, _INT32, _MASK, _VECTOR])
    function = llvm_function(builder, kind, "llvm.masked.load.v16f32.p0")
    return builder.call(function, [pointer, ir.Constant(_INT32, 4), mask, _zeros()])


def _store(builder: Any, value: Any, pointer: Any, mask: Any | None, past_caches: bool) -> None:
    if mask is None:
        store = builder.store(value, pointer, align=LANES * 4 if past_caches else 4)
        if past_caches:
            store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_INT32, 1)]))
        return
    kind = ir.FunctionType(ir.VoidType(), [_VECTOR, _POINTER, _INT32, _MASK])
    function = llvm_function(builder, kind, "llvm.masked.store.v16f32.p0")
    builder.call(function, [value, pointer, ir.Constant(_INT32, 4), mask])


def _over_row(builder: Any, dim: Any, emit: Callable[[Any, Any | None], None]) -> None:
    """Emit (start, no mask) in a loop over whole vectors, then (start, mask) for the tail."""
    tail = builder.and_(dim, ir.Constant(_INT64, LANES - 1))
    whole, zero = builder.sub(dim, tail), ir.Constant(_INT64, 0)
    with llvm_loop(builder, zero, whole, LANES) as start:
        emit(start, None)
    with builder.if_then(builder.icmp_signed(">", tail, zero)):
        emit(whole, _tail_mask(builder, tail))


def _row_operation(build: Build, *reads: str, past_caches: bool = False) -> Any:
    """An intrinsic ``(target, source, factor, dim)``: for d < dim, ``target[d] = build(target[d], source[d], factor)``."""

    def emit(builder: Any, args: Any, start: Any, mask: Any | None) -> None:
        def load(address: Any, name: str) -> Any:
            return _load(builder, _pointer(builder, address, start), mask) if name in reads else _zeros()

        operands = _Operands(load(args[0], "target"), load(args[1], "source"), _splat(builder, args[2]))
        _store(builder, build(builder, operands), _pointer(builder, args[0], start), mask, past_caches)

    @intrinsic
    def operation(typingctx: Any, target: Any, source: Any, factor: Any, dim: Any) -> Any:
        del typingctx, target, source, factor, dim

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            del signature
            _over_row(builder, args[3], lambda start, mask: emit(builder, args, start, mask))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.float32, types.int64), codegen

    return operation


copy = _row_operation(lambda _, v: v.source, "source")
"""target = source"""
copy_past_caches = _row_operation(lambda _, v: v.source, "source", past_caches=True)
"""target = source, straight to memory: the target must start on a multiple of 64 bytes. Other threads may see it after ``fence``."""
clear = _row_operation(lambda _b, _v: _zeros())
"""target = 0"""
scale = _row_operation(lambda b, v: b.fmul(v.factor, v.source), "source")
"""target = factor * source"""
add = _row_operation(lambda b, v: b.fadd(v.target, v.source), "target", "source")
"""target = target + source"""
add_scaled = _row_operation(lambda b, v: b.fadd(v.target, b.fmul(v.factor, v.source)), "target", "source")
"""target = target + (factor * source)"""
subtract_scaled = _row_operation(lambda b, v: b.fsub(v.target, b.fmul(v.factor, v.source)), "target", "source")
"""target = target - (factor * source)"""
divide = _row_operation(lambda b, v: b.fdiv(v.target, v.factor), "target")
"""target = target / factor"""


def _halving_sum(builder: Any, lanes: Any) -> Any:
    """Lane j + lane j + 8, then + 4, + 2, + 1."""
    for half in (8, 4, 2, 1):
        picks = ir.Constant(ir.VectorType(_INT32, LANES), [(lane + half) % LANES for lane in range(LANES)])
        lanes = builder.fadd(lanes, builder.shuffle_vector(lanes, ir.Constant(_VECTOR, ir.Undefined), picks))
    return builder.extract_element(lanes, ir.Constant(_INT32, 0))


@intrinsic
def dot(typingctx: Any, left: Any, right: Any, dim: Any) -> Any:
    """Sum of left[d] * right[d] in a fixed order: lane j of 16 starts at 0 and adds the products j, j + 16, ... one after the
    other; then lanes are summed by halving (j with j + 8, then 4, 2, 1)."""
    del typingctx, left, right, dim

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del context, signature
        with builder.goto_entry_block():
            total = builder.alloca(_VECTOR)
        builder.store(_zeros(), total)

        def emit(start: Any, mask: Any | None) -> None:
            pair = [_load(builder, _pointer(builder, address, start), mask) for address in args[:2]]
            builder.store(builder.fadd(builder.load(total), builder.fmul(*pair)), total)

        _over_row(builder, args[2], emit)
        return _halving_sum(builder, builder.load(total))

    return types.float32(types.int64, types.int64, types.int64), codegen


@intrinsic
def load_float(typingctx: Any, address: Any) -> Any:
    """The float32 at an address."""
    del typingctx, address

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del context, signature
        return builder.load(builder.inttoptr(args[0], _FLOAT.as_pointer()), align=4)

    return types.float32(types.int64), codegen


@intrinsic
def store_float(typingctx: Any, address: Any, value: Any) -> Any:
    """Write a float32 to an address."""
    del typingctx, address, value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del signature
        builder.store(args[1], builder.inttoptr(args[0], _FLOAT.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), codegen


ONE = np.float32(1.0)
