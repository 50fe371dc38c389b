"""bf16, int8 and int4 written down once more, slowly, in plain numpy: row by row, with the bf16 numbers found in a list of all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]
RowBytes = npt.NDArray[np.uint8]

_ALL = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
FINITE: Any = np.unique(_ALL[np.isfinite(_ALL)])
"""Every finite bf16 number, rising; one zero."""
LIMIT = 2.0**122


def brain_bytes(value: np.float32) -> bytes:
    return (np.float32(value) + np.float32(0)).tobytes()[2:]


def brain_from(data: bytes) -> np.float32:
    return np.float32(np.frombuffer(b"\0\0" + data, np.float32)[0])


def encode_brain(weights_d: Float32s) -> bytes:
    """Each weight's nearest bf16 number; of two as near, that with an even last bit."""
    out = b""
    for weight in weights_d:
        if np.isnan(weight):
            bits = int(weight.view(np.uint32)) >> 16 | 0x40
            out += bits.to_bytes(2, "little")
            continue
        bits = int(weight.view(np.uint32))
        below, rest = bits >> 16, bits & 0xFFFF
        up = rest > 0x8000 or (rest == 0x8000 and below % 2 == 1)
        out += (below + up).to_bytes(2, "little")
    return out


def parameters(weights_d: Float32s, levels: int) -> tuple[np.float32, np.float32] | None:
    """(scale, offset); None where the row cannot be told so."""
    if not (np.isfinite(weights_d).all() and (np.abs(weights_d) < np.float32(LIMIT)).all()):
        return None
    offset = FINITE[np.searchsorted(FINITE, weights_d.min(), side="right") - 1]
    spread = np.float32(weights_d.max() - offset)
    if spread == 0:
        return np.float32(0), offset
    scale = FINITE[np.searchsorted(FINITE, np.float32(spread / np.float32(levels)), side="left")]
    return max(scale, np.float32(2.0**-126)), offset


def codes(weights_d: Float32s, scale: np.float32, offset: np.float32, levels: int) -> list[int]:
    if scale == 0:
        return [0] * len(weights_d)
    inverse = np.float32(1) / scale
    steps = np.rint((weights_d - offset) * inverse)
    return [min(int(step), levels) for step in steps]


def encode_quantized(weights_d: Float32s, bits: int) -> bytes:
    levels, dim = (1 << bits) - 1, len(weights_d)
    found = parameters(weights_d, levels)
    head = b"\xc0\x7f\xc0\x7f" if found is None else brain_bytes(found[0]) + brain_bytes(found[1])
    some = [0] * dim if found is None else codes(weights_d, *found, levels)
    if bits == 8:
        return head + bytes(some)
    half = -(-dim // 2)
    some.append(0)
    return head + bytes(some[j] + 16 * (some[half + j] if half + j < dim else 0) for j in range(half))


def decode_quantized(data: bytes, dim: int, bits: int) -> Float32s:
    scale, offset = brain_from(data[:2]), brain_from(data[2:4])
    if not (np.isfinite(scale) and np.isfinite(offset) and abs(float(scale)) < 2.0**120):
        return np.full(dim, 0x7FC00000, np.uint32).view(np.float32)
    some = np.frombuffer(data[4:], np.uint8)
    if bits == 4:
        some = np.concatenate([some & 15, some >> 4])[:dim]
    # In float64 the product and the sum of these numbers are exact, so this is rounded once.
    with np.errstate(over="ignore"):
        return (np.float64(offset) + np.float64(scale) * some).astype(np.float32)


def encode(name: str, weights_nd: Float32s) -> RowBytes:
    """All rows by codec ``name``."""
    by_name: Any = {
        "bf16": encode_brain,
        "int8": lambda row: encode_quantized(row, 8),
        "int4": lambda row: encode_quantized(row, 4),
    }
    return np.array([list(by_name[name](row)) for row in weights_nd], np.uint8)


def decode(name: str, encoded_nb: RowBytes, dim: int) -> Float32s:
    if name == "bf16":
        return (encoded_nb.view("<u2").astype(np.uint32) << 16).view(np.float32)
    bits = int(name[3:])
    return np.array([decode_quantized(row.tobytes(), dim, bits) for row in encoded_nb], np.float32).reshape(-1, dim)
