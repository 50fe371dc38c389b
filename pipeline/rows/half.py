"""binary16: eight numbers at a time by the processor, where it converts; else, and for NaN, by integer arithmetic.

In the arithmetic every branch is a selection, so that its loops run on vector registers too. Both ways give the same bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from pipeline.rows.arrays import row_words
from pipeline.rows.half_vectors import LANES, PROCESSOR_CONVERTS, to_halves, to_singles

SIGN = np.uint32(0x8000)
MAGNITUDE = np.uint32(0x7FFFFFFF)
FRACTION = np.uint32(0x7FFFFF)
HIDDEN_BIT = np.uint32(0x800000)
SINGLE_INFINITY = np.uint32(0x7F800000)
HALF_INFINITY = np.uint32(0x7C00)
SMALLEST_NORMAL = np.uint32(0x38800000)
"""2**-14: below, a half is subnormal."""
OVERFLOW = np.uint32(0x477FF000)
"""65,520: from here on, a half is infinite."""
REBIAS = np.uint32(0xC8000FFF)
"""-112 << 23 for the exponent, + 0xFFF for rounding."""
MAX_SHIFT = np.uint32(25)
"""Moves all 24 bits of a fraction out, so that what is left is zero."""
ONE, TEN, SHIFT = np.uint32(1), np.uint32(0x3FF), np.uint32(13)


@njit(nogil=True, cache=True)
def to_half(bits):  # type: ignore[no-untyped-def]
    """uint32 bits of a float32 -> uint32 whose low 16 bits are the half."""
    size = bits & MAGNITUDE
    normal = (size + REBIAS + ((size >> SHIFT) & ONE)) >> SHIFT
    shift = min(np.uint32(126) - (size >> np.uint32(23)), MAX_SHIFT)
    fraction = (size & FRACTION) | HIDDEN_BIT
    subnormal = (fraction + (ONE << (shift - ONE)) - ONE + ((fraction >> shift) & ONE)) >> shift
    payload = (size >> SHIFT) & TEN
    nan = HALF_INFINITY | (payload if payload != 0 else ONE)
    half = subnormal if size < SMALLEST_NORMAL else normal
    half = HALF_INFINITY if size >= OVERFLOW else half
    half = nan if size > SINGLE_INFINITY else half
    return ((bits >> np.uint32(16)) & SIGN) | half


@njit(nogil=True, cache=True)
def to_single(half):  # type: ignore[no-untyped-def]
    """uint32 whose low 16 bits are a half -> uint32 bits of the float32."""
    size = half & np.uint32(0x7FFF)
    # A subnormal half is size * 2**-24: a small integer is exact in float32, and so is the product.
    small = np.float32(np.int32(size)) * np.float32(2.0**-24)
    bits = (size << SHIFT) + np.uint32(112 << 23)
    bits = (size << SHIFT) | SINGLE_INFINITY if size >= HALF_INFINITY else bits
    bits = np.float32(small).view(np.uint32) if size < np.uint32(0x400) else bits
    return bits | ((half & SIGN) << np.uint32(16))


@njit(nogil=True, cache=True)
def encode_row(bits_w, start, halves_m, first, dim):  # type: ignore[no-untyped-def]
    """``dim`` float32, as uint32 bits from ``start`` on -> uint16 halves from ``first`` on. Both arrays are contiguous."""
    whole = 0
    if PROCESSOR_CONVERTS:
        whole = dim - dim % LANES
        nan = 0
        for d in range(0, whole, LANES):
            nan |= to_halves(bits_w.ctypes.data + 4 * (start + d), halves_m.ctypes.data + 2 * (first + d))
        whole = 0 if nan else whole
    for d in range(whole, dim):
        halves_m[first + d] = np.uint16(to_half(bits_w[start + d]))


@njit(nogil=True, cache=True)
def decode_row(halves_m, first, bits_w, start, dim):  # type: ignore[no-untyped-def]
    """The other way."""
    whole = 0
    if PROCESSOR_CONVERTS:
        whole = dim - dim % LANES
        nan = 0
        for d in range(0, whole, LANES):
            nan |= to_singles(halves_m.ctypes.data + 2 * (first + d), bits_w.ctypes.data + 4 * (start + d))
        whole = 0 if nan else whole
    for d in range(whole, dim):
        bits_w[start + d] = to_single(np.uint32(halves_m[first + d]))


@njit(nogil=True, cache=True)
def _encode(bits_w, dim, stride, halves_m):  # type: ignore[no-untyped-def]
    for n in range(halves_m.shape[0] // dim):
        encode_row(bits_w, n * stride, halves_m, n * dim, dim)


@njit(nogil=True, cache=True)
def _decode(halves_m, dim, bits_m):  # type: ignore[no-untyped-def]
    for n in range(halves_m.shape[0] // dim):
        decode_row(halves_m, n * dim, bits_m, n * dim, dim)


def encode_halves(weights_nd: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """float32 [n, d], any strides -> uint16 [n, d]. Rows that are contiguous are read where they are."""
    count, dim = weights_nd.shape
    halves_nd = np.empty((count, dim), dtype=np.uint16)
    if halves_nd.size:
        words_w, stride = row_words(weights_nd)
        _encode(words_w, dim, stride, halves_nd.reshape(-1))
    return halves_nd


def decode_halves(halves_nd: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """uint16 [n, d], contiguous -> float32 [n, d]."""
    source = halves_nd.reshape(-1).view()
    source.flags.writeable = False
    bits_nd = np.empty(halves_nd.shape, dtype=np.uint32)
    _decode(source, halves_nd.shape[1], bits_nd.reshape(-1))
    return bits_nd.view(np.float32)
