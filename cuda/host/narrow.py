"""Numbers of 16 bits in rows: to float32 and back, 16 at a time. What the formats are stands in ``pipeline.rows.narrow``.

Going to 16 bits, a number x lies between two neighbours of the format. ``nearest`` takes the nearer one, of two equally near that
with an even last bit. ``by chance`` takes the one farther from zero with a probability of its share of the way there, for which it
compares what would be cut off with ``noise``'s 16 bits: it adds them, below the last bit that is kept, and cuts. Cut off are 13 bits
(binary16) or 16 (bfloat16), so the share is exact and the mean of all roundings of x is x. Of binary16's subnormal numbers more is
cut off, of which the first 16 bits count: there the mean is exact to 2**-16 of the distance of neighbours. A number that the format
has stays as it is. What lies above its largest number may become infinity, and a NaN stays one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cuda.host.compiled import device, seldom
from cuda.host.machine import put_bytes
from cuda.host.numba_types import intrinsic, ir, llvm_loop, types
from pipeline.rows.half_vectors import PROCESSOR_CONVERTS
from pipeline.rows.narrow import HALF, SINGLE

LANES: Final = 16

_INT16, _INT32, _INT64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_SHORTS, _WORDS = ir.VectorType(_INT16, LANES), ir.VectorType(_INT32, LANES)
_FLOATS, _HALVES = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.HalfType(), LANES)


def _all(value: int) -> Any:
    return ir.Constant(_WORDS, [value] * LANES)


def _least(builder: Any, words: Any, most: int) -> Any:
    return builder.select(builder.icmp_unsigned("<", words, _all(most)), words, _all(most))


def _load(builder: Any, address: Any, vector: Any, align: int) -> Any:
    return builder.load(builder.inttoptr(address, vector.as_pointer()), align=align)


def _widen_half(builder: Any, shorts: Any) -> Any:
    """The bits of binary16 -> float32."""
    if PROCESSOR_CONVERTS:
        return builder.fpext(builder.bitcast(shorts, _HALVES), _FLOATS)
    words = builder.zext(shorts, _WORDS)
    size = builder.shl(builder.and_(words, _all(0x7FFF)), _all(13))
    scaled = builder.fmul(builder.bitcast(size, _FLOATS), ir.Constant(_FLOATS, [2.0**112] * LANES))
    special = builder.icmp_unsigned(">=", size, _all(0x0F800000))
    bits = builder.select(special, builder.or_(size, _all(0x7F800000)), builder.bitcast(scaled, _WORDS))
    sign = builder.shl(builder.and_(words, _all(0x8000)), _all(16))
    return builder.bitcast(builder.or_(bits, sign), _FLOATS)


def _widen_brain(builder: Any, shorts: Any) -> Any:
    return builder.bitcast(builder.shl(builder.zext(shorts, _WORDS), _all(16)), _FLOATS)


def _added(builder: Any, kept_from: Any, cut_off: Any, noisy: Any | None) -> Any:
    """What is added before ``cut_off`` bits, 13 to 31, are cut off. ``noisy``: 16 random bits, or None: to nearest."""
    if noisy is not None:
        top = builder.shl(noisy, _all(16))
        return builder.lshr(top, builder.sub(_all(32), cut_off))
    below_half = builder.sub(builder.shl(_all(1), builder.sub(cut_off, _all(1))), _all(1))
    return builder.add(below_half, builder.and_(builder.lshr(kept_from, cut_off), _all(1)))


def _narrow_half(builder: Any, bits: Any, noisy: Any | None) -> Any:
    """float32 bits -> the bits of binary16, in the low half of each word."""
    size = builder.and_(bits, _all(0x7FFFFFFF))
    rebiased = builder.sub(size, _all(112 << 23))
    normal = builder.lshr(builder.add(rebiased, _added(builder, rebiased, _all(13), noisy)), _all(13))
    beyond = builder.sub(_all(126), _least(builder, builder.lshr(size, _all(23)), 112))
    cut_off = _least(builder, beyond, 31)
    fraction = builder.or_(builder.and_(size, _all(0x7FFFFF)), _all(0x800000))
    fraction = builder.lshr(fraction, _least(builder, builder.sub(beyond, cut_off), 31))
    small = builder.lshr(builder.add(fraction, _added(builder, fraction, cut_off, noisy)), cut_off)
    half = builder.select(builder.icmp_unsigned("<", size, _all(0x38800000)), small, normal)
    half = builder.select(builder.icmp_unsigned(">=", size, _all(0x47800000)), _all(0x7C00), half)
    half = builder.select(builder.icmp_unsigned(">", size, _all(0x7F800000)), _all(0x7E00), half)
    return builder.or_(half, builder.and_(builder.lshr(bits, _all(16)), _all(0x8000)))


def _narrow_brain(builder: Any, bits: Any, noisy: Any | None) -> Any:
    """The same of bfloat16."""
    added = noisy if noisy is not None else _added(builder, bits, _all(16), None)
    brain = builder.lshr(builder.add(bits, added), _all(16))
    is_nan = builder.icmp_unsigned(">", builder.and_(bits, _all(0x7FFFFFFF)), _all(0x7F800000))
    return builder.select(is_nan, builder.or_(builder.lshr(bits, _all(16)), _all(0x40)), brain)


Convert = Callable[[Any, Any, Any], Any]
"""(builder, address of 16 numbers, address of their place) -> what belongs there."""


def _conversion(convert: Convert, source_bytes: int, target_bytes: int) -> Any:
    """``(target, source, count)``: convert ``count`` numbers, 16 at a time. The sizes are those of one number."""

    @intrinsic
    def converted(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
        del typingctx, target, source, count

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            del signature
            with llvm_loop(builder, ir.Constant(_INT64, 0), args[2], LANES) as start:
                source = builder.add(args[1], builder.mul(start, ir.Constant(_INT64, source_bytes)))
                target = builder.add(args[0], builder.mul(start, ir.Constant(_INT64, target_bytes)))
                numbers = convert(builder, source, target)
                place = builder.inttoptr(target, numbers.type.as_pointer())
                builder.store(numbers, place, align=target_bytes)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), codegen

    return converted


def _widening(formula: Any) -> Any:
    return _conversion(lambda builder, source, _target: formula(builder, _load(builder, source, _SHORTS, 2)), 2, 4)


def _narrowing(formula: Any, by_chance: bool) -> Any:
    def convert(builder: Any, source: Any, target: Any) -> Any:
        noisy = builder.zext(_load(builder, target, _SHORTS, 2), _WORDS) if by_chance else None
        return builder.trunc(formula(builder, _load(builder, source, _WORDS, 4), noisy), _SHORTS)

    return _conversion(convert, 4, 2)


_widen_halves, _widen_brains = _widening(_widen_half), _widening(_widen_brain)
_nearest_halves, _nearest_brains = _narrowing(_narrow_half, False), _narrowing(_narrow_brain, False)
_chance_halves, _chance_brains = _narrowing(_narrow_half, True), _narrowing(_narrow_brain, True)


@seldom
def widen_row(row: int, kind: int, count: int, shorts: int, floats: int) -> None:
    """``count`` numbers at ``row`` to float32 at ``floats``. Both scratches have room for ``count`` rounded up to ``LANES``."""
    source = row
    if count % LANES != 0:
        put_bytes(shorts, row, 2 * count)
        source = shorts
    if kind == HALF:
        _widen_halves(floats, source, count)
    else:
        _widen_brains(floats, source, count)


@seldom
def narrow_row(row: int, kind: int, count: int, shorts: int, floats: int, by_chance: bool) -> None:
    """The other way. With ``by_chance``, ``shorts`` holds the numbers' noise; it is used up, up to ``count`` rounded up to ``LANES``."""
    if kind == HALF and by_chance:
        _chance_halves(shorts, floats, count)
    elif kind == HALF:
        _nearest_halves(shorts, floats, count)
    elif by_chance:
        _chance_brains(shorts, floats, count)
    else:
        _nearest_brains(shorts, floats, count)
    put_bytes(row, shorts, 2 * count)


@device
def whole(count: int) -> Any:
    """``count`` rounded up to ``LANES``."""
    return (count + LANES - 1) // LANES * LANES


@device
def weight_bytes(dim: int, kind: int) -> Any:
    return 4 * dim if kind == SINGLE else 2 * dim


@device
def weights_of(row: int, kind: int, dim: int, shorts: int, floats: int) -> Any:
    """The address of a row's weights as float32: where they are, or widened in ``floats``."""
    if kind == SINGLE:
        return row
    widen_row(row, kind, dim, shorts, floats)
    return floats
