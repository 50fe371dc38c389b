"""Arithmetic on rows of float32 at raw addresses, 16 numbers at a time, as LLVM vector code.

Rules: every product, sum, difference and quotient is rounded to float32 on its own (no fused multiply-add, no reassociation), so a
twin on another device can give the same bits. Addresses are in bytes and need the alignment of a float32 only. A row may have any
length; the last ``dim % 16`` numbers go through masked loads and stores, so nothing behind a row is read or written.

Why not loops over arrays: LLVM cannot know that two addresses do not overlap and would check at run time, row by row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cuda.host.compiled import device
from cuda.host.lanes import FLOAT, every_lane, lanes_at, load_lanes, over_row, splat, store_lanes, sum_over_row, zeros
from cuda.host.numba_types import intrinsic, types


class _Operands(NamedTuple):
    """LLVM vectors; what an operation does not read is zero."""

    target: Any
    source: Any
    factor: Any


def _within(builder: Any, v: _Operands) -> Any:
    below = builder.fneg(v.factor)
    low = builder.select(builder.fcmp_ordered("<", v.source, below), below, v.source)
    return builder.select(builder.fcmp_ordered(">", low, v.factor), v.factor, low)


Build = Callable[[Any, _Operands], Any]
"""(builder, operands) -> the target's new vector."""


def _row_operation(build: Build, *reads: str, past_caches: bool = False) -> Any:
    """An intrinsic ``(target, source, factor, dim)``: for d < dim, ``target[d] = build(target[d], source[d], factor)``."""

    def emit(builder: Any, args: Any, start: Any, mask: Any | None) -> None:
        def load(address: Any, name: str) -> Any:
            return load_lanes(builder, lanes_at(builder, address, start), mask) if name in reads else zeros()

        operands = _Operands(load(args[0], "target"), load(args[1], "source"), splat(builder, args[2]))
        store_lanes(builder, build(builder, operands), lanes_at(builder, args[0], start), mask, past_caches)

    @intrinsic
    def operation(typingctx: Any, target: Any, source: Any, factor: Any, dim: Any) -> Any:
        del typingctx, target, source, factor, dim

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            del signature
            over_row(builder, args[3], lambda start, mask: emit(builder, args, start, mask))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.float32, types.int64), codegen

    return operation


copy = _row_operation(lambda _, v: v.source, "source")
"""target = source"""
copy_past_caches = _row_operation(lambda _, v: v.source, "source", past_caches=True)
"""target = source, straight to memory: the target must start on a multiple of 64 bytes. Other threads may see it after ``fence``."""
clear = _row_operation(lambda _b, _v: zeros())
"""target = 0"""
scale = _row_operation(lambda b, v: b.fmul(v.factor, v.source), "source")
"""target = factor * source"""
add = _row_operation(lambda b, v: b.fadd(v.target, v.source), "target", "source")
"""target = target + source"""
add_scaled = _row_operation(lambda b, v: b.fadd(v.target, b.fmul(v.factor, v.source)), "target", "source")
"""target = target + (factor * source)"""
subtract_scaled = _row_operation(lambda b, v: b.fsub(v.target, b.fmul(v.factor, v.source)), "target", "source")
"""target = target - (factor * source)"""
clip = _row_operation(_within, "source")
"""target = source brought within -factor .. factor; a NaN stays one"""
divide = _row_operation(lambda b, v: b.fdiv(v.target, v.factor), "target")
"""target = target / factor"""


@intrinsic
def dot(typingctx: Any, left: Any, right: Any, dim: Any) -> Any:
    """Sum of left[d] * right[d] in a fixed order: lane j of 16 starts at 0 and adds the products j, j + 16, ... one after the
    other; then lanes are summed by halving (j with j + 8, then 4, 2, 1)."""
    del typingctx, left, right, dim

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del context, signature

        def product(start: Any, mask: Any | None) -> Any:
            return builder.fmul(*(load_lanes(builder, lanes_at(builder, address, start), mask) for address in args[:2]))

        return sum_over_row(builder, args[2], product)

    return types.float32(types.int64, types.int64, types.int64), codegen


@intrinsic
def all_finite(typingctx: Any, row: Any, dim: Any) -> Any:
    """Whether no number of a row is infinite or NaN."""
    del typingctx, row, dim

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del context, signature
        return every_lane(builder, args[1], lambda start, mask: _finite(builder, args[0], start, mask))

    return types.boolean(types.int64, types.int64), codegen


def _finite(builder: Any, row: Any, start: Any, mask: Any | None) -> Any:
    lanes = load_lanes(builder, lanes_at(builder, row, start), mask)
    return builder.fcmp_ordered("oeq", builder.fsub(lanes, lanes), zeros())


@device
def limit_norm(row: int, most: float, dim: int) -> None:
    """row *= most / norm(row) where the norm is above ``most``."""
    norm = math.sqrt(dot(row, row, dim))
    if norm > most:
        scale(row, row, most / norm, dim)


@intrinsic
def load_float(typingctx: Any, address: Any) -> Any:
    """The float32 at an address."""
    del typingctx, address

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del context, signature
        return builder.load(builder.inttoptr(args[0], FLOAT.as_pointer()), align=4)

    return types.float32(types.int64), codegen


@intrinsic
def store_float(typingctx: Any, address: Any, value: Any) -> Any:
    """Write a float32 to an address."""
    del typingctx, address, value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del signature
        builder.store(args[1], builder.inttoptr(args[0], FLOAT.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), codegen


ONE = np.float32(1.0)
