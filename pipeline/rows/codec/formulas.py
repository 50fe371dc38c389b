"""The built-in codecs, one row at a time: their formulas, and the kernels that compute them.

All numbers are little endian; w are the d weights of a row, float32.

    fp32    the float32 bits
    fp16    IEEE binary16, rounded to nearest, ties to even. From 65,520 on a weight becomes infinity; one too small becomes a subnormal
            or a zero of its sign. A NaN keeps its sign and the top ten bits of its payload; were these all zero, the lowest is set, so
            that it stays a NaN.
    bf16    the upper half of the float32 bits, rounded to nearest, ties to even; from 0x7F7F8000 on that is infinity. Of a NaN the upper
            half stays, with bit 6 set.
    int8    bf16 scale s, bf16 offset o, then d codes of a byte, 0 .. L = 255: see ``quantized``
    int4    bf16 scale s, bf16 offset o, then h = ceil(d / 2) bytes of two codes, 0 .. L = 15: byte j has the code of weight j in its
            low four bits, that of weight h + j in its high ones, or 0 where there is no such weight

Decoding fp16 and bf16 is exact: each such number is a float32 number; a NaN keeps sign and payload.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from pipeline.rows.codec.quantized import decode_bytes, decode_nibbles, encode_bytes, encode_nibbles
from pipeline.rows.half import decode_row as decode_halves
from pipeline.rows.half import encode_row as encode_halves
from pipeline.rows.narrow import SIXTEEN, to_brain

FP32: Final = 0
FP16: Final = 1
BF16: Final = 2
INT8: Final = 3
INT4: Final = 4
KINDS: Final = {"fp32": FP32, "fp16": FP16, "bf16": BF16, "int8": INT8, "int4": INT4}
"""How kernels name the built-in codecs."""


def row_bytes(kind: int, dim: int) -> int:
    """Bytes of one encoded row."""
    return {FP32: 4 * dim, FP16: 2 * dim, BF16: 2 * dim, INT8: 4 + dim, INT4: 4 + (dim + 1) // 2}[kind]


@njit(nogil=True, cache=True)
def encode_row(kind, bits_d, out_b):  # type: ignore[no-untyped-def]
    """uint32 bits of float32 [d] -> uint8 [row_bytes], which begins at a multiple of 4 in memory for fp32, of 2 for 16 bits."""
    if kind == FP16:
        encode_halves(bits_d, 0, out_b.view(np.uint16), 0, bits_d.shape[0])
    elif kind == INT8:
        encode_bytes(bits_d, out_b)
    elif kind == INT4:
        encode_nibbles(bits_d, out_b)
    elif kind == BF16:
        brains_d = out_b.view(np.uint16)
        for d in range(bits_d.shape[0]):
            brains_d[d] = np.uint16(to_brain(bits_d[d]))
    else:
        out_b.view(np.uint32)[:] = bits_d


@njit(nogil=True, cache=True)
def decode_row(kind, row_b, bits_d):  # type: ignore[no-untyped-def]
    """The other way; every byte of ``bits_d`` is written."""
    if kind == FP16:
        decode_halves(row_b.view(np.uint16), 0, bits_d, 0, bits_d.shape[0])
    elif kind == INT8:
        decode_bytes(row_b, bits_d)
    elif kind == INT4:
        decode_nibbles(row_b, bits_d)
    elif kind == BF16:
        brains_d = row_b.view(np.uint16)
        for d in range(bits_d.shape[0]):
            bits_d[d] = np.uint32(brains_d[d]) << SIXTEEN
    else:
        bits_d[:] = row_b.view(np.uint32)
