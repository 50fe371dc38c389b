"""The formulas of initial rows, digest and layout once more, in plain Python: slow, and written from the documentation
alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec

WORD = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & WORD
    return z ^ (z >> 31)


def initial_weight(spec: TableSpec, row_id: int, column: int) -> np.float32:
    table_key = xxhash.xxh64_intdigest(spec.name.encode(), spec.seed & WORD)
    row_key = mix(table_key ^ mix((row_id + GAMMA) & WORD))

    def word(k: int) -> int:
        return mix((row_key + (k + 1) * GAMMA) & WORD)

    rule = spec.initializer
    if rule.kind == "zeros":
        return np.float32(0)
    if rule.kind == "uniform":
        low, high = np.float32(rule.low), np.float32(rule.high)
        u = np.float32(word(column) >> 40) * np.float32(2**-24)
        return np.float32(low + np.float32(np.float32(high - low) * u))
    parts = [word(3 * column + k) >> shift & 0xFFFF for k in range(3) for shift in (0, 16, 32, 48)]
    z = np.float32(sum(parts) - 393210) * np.float32(2**-16)
    return np.float32(np.float32(rule.mean) + np.float32(np.float32(rule.std) * z))


def digest(table: str, ids: Sequence[int], payload: Sequence[bytes], steps: Sequence[int]) -> int:
    table_key = xxhash.xxh64_intdigest(table.encode(), 0)
    total = 0
    for row_id, data, step in zip(ids, payload, steps, strict=True):
        key = row_id.to_bytes(8, "little", signed=True) + step.to_bytes(8, "little", signed=True)
        total += xxhash.xxh64_intdigest(data, xxhash.xxh64_intdigest(key, table_key))
    return total & WORD


def layout_of(dim: int, *states: Column) -> RowLayout:
    return RowLayout((Column("weight", "float32", dim, "weight"), *states))


def spec_of(dim: int, initializer: Initializer, *, name: str = "users", seed: int = 7) -> TableSpec:
    return TableSpec(name, layout_of(dim, Column("momentum", "float32", 1, "state")), initializer, seed)


def bits(values: npt.ArrayLike) -> list[Any]:
    """float32 values as their bits, so that NaN and -0.0 compare."""
    array = np.ascontiguousarray(values, dtype=np.float32)
    found: list[Any] = array.view(np.uint32).tolist()
    return found
