"""Rows of float32 as LLVM vectors of 16: what functions whose code is written by hand are built of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cuda.host.numba_types import ir, llvm_function, llvm_loop

LANES: Final = 16

FLOAT = ir.FloatType()
_INT32, INT64 = ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)
_POINTER = VECTOR.as_pointer()


def zeros() -> Any:
    """16 of them."""
    return ir.Constant(VECTOR, [0.0] * LANES)


def splat(builder: Any, scalar: Any, vector: Any = VECTOR) -> Any:
    """One number in all lanes."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
    zero_lanes = ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
    return builder.shuffle_vector(first, undefined, zero_lanes)


def lanes_at(builder: Any, address: Any, start: Any) -> Any:
    """Pointer to the 16 numbers from number ``start`` on of the row at ``address``."""
    offset = builder.mul(start, ir.Constant(INT64, 4))
    return builder.inttoptr(builder.add(address, offset), _POINTER)


def _tail_mask(builder: Any, remaining: Any) -> Any:
    """The lanes below ``remaining``."""
    lanes = ir.Constant(ir.VectorType(INT64, LANES), list(range(LANES)))
    return builder.icmp_signed("<", lanes, splat(builder, remaining, ir.VectorType(INT64, LANES)))


def load_lanes(builder: Any, pointer: Any, mask: Any | None) -> Any:
    """16 numbers. Those outside the mask are zero."""
    if mask is None:
        return builder.load(pointer, align=4)
    kind = ir.FunctionType(VECTOR, [_POINTER, _INT32, _MASK, VECTOR])
    function = llvm_function(builder, kind, "llvm.masked.load.v16f32.p0")
    return builder.call(function, [pointer, ir.Constant(_INT32, 4), mask, zeros()])


def store_lanes(builder: Any, value: Any, pointer: Any, mask: Any | None, past_caches: bool = False) -> None:
    """Write those inside the mask. ``past_caches``: straight to memory."""
    if mask is None:
        store = builder.store(value, pointer, align=LANES * 4 if past_caches else 4)
        if past_caches:
            store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_INT32, 1)]))
        return
    kind = ir.FunctionType(ir.VoidType(), [VECTOR, _POINTER, _INT32, _MASK])
    function = llvm_function(builder, kind, "llvm.masked.store.v16f32.p0")
    builder.call(function, [value, pointer, ir.Constant(_INT32, 4), mask])


def over_row(builder: Any, dim: Any, emit: Callable[[Any, Any | None], None]) -> None:
    """Emit (start, no mask) in a loop over whole vectors, then (start, mask) for the tail."""
    tail = builder.and_(dim, ir.Constant(INT64, LANES - 1))
    whole, zero = builder.sub(dim, tail), ir.Constant(INT64, 0)
    with llvm_loop(builder, zero, whole, LANES) as start:
        emit(start, None)
    with builder.if_then(builder.icmp_signed(">", tail, zero)):
        emit(whole, _tail_mask(builder, tail))


def sum_over_row(builder: Any, dim: Any, term: Callable[[Any, Any | None], Any]) -> Any:
    """The sum of ``term(start, mask)``, 16 numbers each: lane by lane from 0 on, then the lanes by halving."""
    with builder.goto_entry_block():
        so_far = builder.alloca(VECTOR)
    builder.store(zeros(), so_far)
    over_row(
        builder,
        dim,
        lambda start, mask: builder.store(builder.fadd(builder.load(so_far), term(start, mask)), so_far),
    )
    return _halving_sum(builder, builder.load(so_far))


def every_lane(builder: Any, dim: Any, holds: Callable[[Any, Any | None], Any]) -> Any:
    """Whether ``holds(start, mask)``, 16 truths each, is true all along the row. Behind its end everything loads as zero."""
    with builder.goto_entry_block():
        so_far = builder.alloca(_MASK)
    builder.store(ir.Constant(_MASK, [1] * LANES), so_far)
    over_row(
        builder,
        dim,
        lambda start, mask: builder.store(builder.and_(builder.load(so_far), holds(start, mask)), so_far),
    )
    bits = builder.bitcast(builder.load(so_far), ir.IntType(LANES))
    return builder.icmp_unsigned("==", bits, ir.Constant(ir.IntType(LANES), (1 << LANES) - 1))


def _halving_sum(builder: Any, lanes: Any) -> Any:
    """Lane j + lane j + 8, then + 4, + 2, + 1."""
    for half in (8, 4, 2, 1):
        picks = ir.Constant(ir.VectorType(_INT32, LANES), [(lane + half) % LANES for lane in range(LANES)])
        lanes = builder.fadd(lanes, builder.shuffle_vector(lanes, ir.Constant(VECTOR, ir.Undefined), picks))
    return builder.extract_element(lanes, ir.Constant(_INT32, 0))
