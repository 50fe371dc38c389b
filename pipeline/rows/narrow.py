"""Numbers of 16 bits, as rows keep weights and states: binary16 (float16) and bfloat16. What is stored are their bits, as uint16.

    widen     exact: each is a float32 number
    narrow    to nearest, ties to even; too large a number becomes infinity; a NaN stays one, of its sign

An update does not round this way but by chance, see ``rounding``; initial rows and whatever comes from outside does.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from pipeline.rows.half import decode_halves, encode_halves, to_half, to_single

SINGLE: Final = 0
HALF: Final = 1
BRAIN: Final = 2
KINDS: Final = {"float32": SINGLE, "float16": HALF, "bfloat16": BRAIN}
"""What weights and states may be, and how kernels name it."""
SINGLE_INFINITY = np.uint32(0x7F800000)
MAGNITUDE = np.uint32(0x7FFFFFFF)
QUIET = np.uint32(0x40)
ALMOST_HALF = np.uint32(0x7FFF)
ONE, SIXTEEN = np.uint32(1), np.uint32(16)


@njit(nogil=True, cache=True)
def to_brain(bits):  # type: ignore[no-untyped-def]
    """uint32 bits of a float32 -> uint32 whose low 16 bits are the bfloat16."""
    high = bits >> SIXTEEN
    nearest = (bits + ALMOST_HALF + (high & ONE)) >> SIXTEEN
    return (high | QUIET) if (bits & MAGNITUDE) > SINGLE_INFINITY else nearest


@njit(nogil=True, cache=True)
def round_row(weights_d, kind):  # type: ignore[no-untyped-def]
    """Round float32 [d] in place to what a row of ``kind`` can hold, to nearest."""
    if kind == SINGLE:
        return
    bits_d = weights_d.view(np.uint32)
    for d in range(bits_d.shape[0]):
        bits_d[d] = to_single(to_half(bits_d[d])) if kind == HALF else to_brain(bits_d[d]) << SIXTEEN


def narrow(values_nd: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.uint16]:
    """float32 [n, d] -> bits [n, d] of ``dtype``, ``float16`` or ``bfloat16``."""
    if dtype == "float16":
        return encode_halves(values_nd)
    bits_nd = np.ascontiguousarray(values_nd).view(np.uint32)
    rounded_nd = (bits_nd + (ALMOST_HALF + ((bits_nd >> SIXTEEN) & ONE))) >> SIXTEEN
    is_nan_nd = (bits_nd & MAGNITUDE) > SINGLE_INFINITY
    rounded_nd[is_nan_nd] = (bits_nd[is_nan_nd] >> SIXTEEN) | QUIET
    return rounded_nd.astype(np.uint16)


def widen(stored_nd: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float32]:
    """Bits [n, d] of ``dtype``, any strides -> a new array float32 [n, d]."""
    if dtype == "float16":
        return decode_halves(np.ascontiguousarray(stored_nd).view(np.uint16))
    return (stored_nd.astype(np.uint32) << SIXTEEN).view(np.float32)
