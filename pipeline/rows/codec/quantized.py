"""int8 and int4: a row between its least and its greatest weight, in equal steps. Defined in float32 operations in this order.

    o = the greatest bf16 number that is not above min(w); -0 becomes +0
    r = max(w) - o                                  0 or more
    s = 0 where r is 0; else the least bf16 number that is not below r / L, and at least 2**-126
    i = 1 / s                                       0 where s is 0
    code(w) = min(L, round((w - o) * i))            to the nearest integer, ties to even
    decoded = o + s * code                          s * code is exact, so that a fused multiply-add gives the same

Each operation is rounded to nearest by itself. A decoded weight is off by s / 2 at most, up to the rounding of the sum, where s is
up to 1/128 larger than it would be without the rounding of scale and offset. A row that holds a NaN or a weight of 2**122 or more
in magnitude, infinities included, cannot be told so: s and o are the NaN 0x7FC0 and all codes 0. Where s that came is 2**120 or more
in magnitude (then s * code could overflow, and a fused operation would not), or s or o is an infinity or a NaN, every weight decodes to
the NaN 0x7FC00000.
"""

from __future__ import annotations

import numpy as np
from numba import njit

LEVELS_8 = np.float32(255)
LEVELS_4 = np.float32(15)
PARAMETER_BYTES = 4
"""Of scale and offset."""
MAGNITUDE = np.uint32(0x7FFFFFFF)
SIGN = np.uint32(0x80000000)
TOO_LARGE = np.uint32(0x7C800000)
"""2**122."""
SCALE_TOO_LARGE = np.uint32(0x7B800000)
"""2**120: such a row has less."""
UPPER = np.uint32(0xFFFF0000)
LOWER = np.uint32(0xFFFF)
NEXT = np.uint32(0x10000)
"""From one bf16 number to the next in magnitude."""
NORMAL = np.uint32(0x00800000)
"""2**-126."""
INFINITY = np.uint32(0x7F800000)
NAN = np.uint32(0x7FC00000)
SHIFTER = np.float32(8388608.0)
"""2**23: added to a small number, it leaves the nearest integer in the low bits of the sum, ties to even."""
SHIFTER_BITS = np.int32(0x4B000000)
ZERO, ONE = np.uint32(0), np.float32(1)
FLIP, BIT_31 = np.int32(0x7FFFFFFF), np.int32(31)


@njit(nogil=True, cache=True)
def _ordered(bits):  # type: ignore[no-untyped-def]
    """uint32 bits of a float32 -> int32 that compares as the number does; also the way back."""
    signed = np.int32(bits)
    return np.int32(signed ^ np.int32(np.int32(signed >> BIT_31) & FLIP))


@njit(nogil=True, cache=True)
def _parameters(bits_d, levels):  # type: ignore[no-untyped-def]
    """Bits of (s, o)."""
    largest, low, high = ZERO, np.int32(0x7FFFFFFF), np.int32(-0x80000000)
    for d in range(bits_d.shape[0]):
        bits = bits_d[d]
        largest = max(largest, np.uint32(bits & MAGNITUDE))
        value = _ordered(bits)
        low = min(low, value)
        high = max(high, value)
    if largest >= TOO_LARGE:
        return NAN, NAN
    offset = _below(np.uint32(_ordered(np.uint32(low))))
    spread = np.float32(_number(_ordered(np.uint32(high))) - _number(offset))
    if spread == 0:
        return ZERO, offset
    scale = np.float32(spread / levels).view(np.uint32)
    scale = np.uint32((scale & UPPER) + (NEXT if scale & LOWER else ZERO))
    return np.uint32(max(scale, NORMAL)), offset


@njit(nogil=True, cache=True)
def _below(bits):  # type: ignore[no-untyped-def]
    """Bits of the greatest bf16 number that is not above."""
    below = np.uint32((bits & UPPER) + (NEXT if bits & SIGN and bits & LOWER else ZERO))
    return ZERO if below == SIGN else below


@njit(nogil=True, cache=True)
def _number(bits):  # type: ignore[no-untyped-def]
    """The float32 of these bits."""
    return np.uint32(bits).view(np.float32)


@njit(nogil=True, cache=True)
def _write_parameters(scale, offset, out_b):  # type: ignore[no-untyped-def]
    out_b[0], out_b[1] = np.uint8(scale >> np.uint32(16)), np.uint8(scale >> np.uint32(24))
    out_b[2], out_b[3] = np.uint8(offset >> np.uint32(16)), np.uint8(offset >> np.uint32(24))


@njit(nogil=True, cache=True)
def _inverse(scale):  # type: ignore[no-untyped-def]
    return np.float32(ONE / _number(scale)) if scale != 0 and scale != NAN else np.float32(0)


@njit(nogil=True, cache=True)
def _code(bits, offset, inverse):  # type: ignore[no-untyped-def]
    """int32, not yet bounded."""
    steps = np.float32(np.float32(_number(bits) - offset) * inverse)
    return np.int32(np.int32(np.float32(steps + SHIFTER).view(np.int32)) - SHIFTER_BITS)


@njit(nogil=True, cache=True)
def encode_bytes(bits_d, out_b):  # type: ignore[no-untyped-def]
    """int8: uint32 bits [d] -> uint8 [4 + d]."""
    scale, offset_bits = _parameters(bits_d, LEVELS_8)
    _write_parameters(scale, offset_bits, out_b)
    codes_d, offset, inverse = out_b[PARAMETER_BYTES:], _number(offset_bits), _inverse(scale)
    if scale == NAN:
        codes_d[:] = 0
        return
    for d in range(bits_d.shape[0]):
        codes_d[d] = np.uint8(min(_code(bits_d[d], offset, inverse), np.int32(255)))


@njit(nogil=True, cache=True)
def encode_nibbles(bits_d, out_b):  # type: ignore[no-untyped-def]
    """int4: uint32 bits [d] -> uint8 [4 + ceil(d / 2)]."""
    scale, offset_bits = _parameters(bits_d, LEVELS_4)
    _write_parameters(scale, offset_bits, out_b)
    pairs_h, offset, inverse = out_b[PARAMETER_BYTES:], _number(offset_bits), _inverse(scale)
    if scale == NAN:
        pairs_h[:] = 0
        return
    half = pairs_h.shape[0]
    high_d = bits_d[half:]
    for j in range(high_d.shape[0]):
        low = min(_code(bits_d[j], offset, inverse), np.int32(15))
        high = min(_code(high_d[j], offset, inverse), np.int32(15))
        pairs_h[j] = np.uint8(low | (high << np.int32(4)))
    if high_d.shape[0] < half:
        pairs_h[half - 1] = np.uint8(min(_code(bits_d[half - 1], offset, inverse), np.int32(15)))


@njit(nogil=True, cache=True)
def _read_parameters(row_b):  # type: ignore[no-untyped-def]
    """Bits of (s, o), both NaN where they make no row."""
    scale = (np.uint32(row_b[0]) << np.uint32(16)) | (np.uint32(row_b[1]) << np.uint32(24))
    offset = (np.uint32(row_b[2]) << np.uint32(16)) | (np.uint32(row_b[3]) << np.uint32(24))
    if scale & MAGNITUDE >= SCALE_TOO_LARGE or offset & INFINITY == INFINITY:
        return NAN, NAN
    return np.uint32(scale), np.uint32(offset)


@njit(nogil=True, cache=True)
def _decoded(code, scale, offset):  # type: ignore[no-untyped-def]
    return np.float32(offset + np.float32(scale * np.float32(code))).view(np.uint32)


@njit(nogil=True, cache=True)
def decode_bytes(row_b, bits_d):  # type: ignore[no-untyped-def]
    """uint8 [4 + d] -> uint32 bits [d]."""
    scale_bits, offset_bits = _read_parameters(row_b)
    if scale_bits == NAN:
        bits_d[:] = NAN
        return
    codes_d, scale, offset = row_b[PARAMETER_BYTES:], _number(scale_bits), _number(offset_bits)
    for d in range(bits_d.shape[0]):
        bits_d[d] = _decoded(np.int32(codes_d[d]), scale, offset)


@njit(nogil=True, cache=True)
def decode_nibbles(row_b, bits_d):  # type: ignore[no-untyped-def]
    """uint8 [4 + ceil(d / 2)] -> uint32 bits [d]."""
    scale_bits, offset_bits = _read_parameters(row_b)
    if scale_bits == NAN:
        bits_d[:] = NAN
        return
    pairs_h, scale, offset = row_b[PARAMETER_BYTES:], _number(scale_bits), _number(offset_bits)
    half = pairs_h.shape[0]
    high_d = bits_d[half:]
    for j in range(high_d.shape[0]):
        bits_d[j] = _decoded(np.int32(pairs_h[j]) & np.int32(15), scale, offset)
        high_d[j] = _decoded(np.int32(pairs_h[j]) >> np.int32(4), scale, offset)
    if high_d.shape[0] < half:
        bits_d[half - 1] = _decoded(np.int32(pairs_h[half - 1]) & np.int32(15), scale, offset)
