"""Small steps from Arrow columns to numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from stages.items import Int64s
from stages.sources.problems import Problems, cast


def is_text(dtype: pa.DataType) -> bool:
    return any(
        check(dtype)
        for check in (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary)
    )


def as_text(values: pa.Array) -> pa.Array:
    """Any values as strings, unchecked: bytes that are no UTF-8 are let through, as they are only hashed or parsed."""
    if pa.types.is_string(values.type):
        return values
    if pa.types.is_binary(values.type):
        return values.view(pa.string())
    if pa.types.is_large_binary(values.type):
        return values.cast(pa.binary()).view(pa.string())
    return values.cast(pa.string())


def to_numpy(values: pa.Array, dtype: type) -> np.ndarray:
    return np.ascontiguousarray(values.to_numpy(zero_copy_only=False), dtype=dtype)


def finite(values: pa.Array, name: str, rows_n: Int64s, problems: Problems) -> np.ndarray:
    """float64, each one finite; [0] when there are problems with the values' texts."""
    numbers_n = to_numpy(cast(values, pa.float64(), name, "is no number", rows_n, problems), np.float64)
    for at in np.flatnonzero(~np.isfinite(numbers_n))[: problems.limit]:
        problems.add(rows_n[at], f"{numbers_n[at]} in column {name!r} is not finite")
    return numbers_n


def drop_nulls(
    values: pa.Array, rows_n: Int64s, lengths_b: Int64s, beside: Sequence[np.ndarray | None]
) -> tuple[pa.Array, Int64s, list[np.ndarray | None]]:
    """Missing ids inside a bag are no ids; what goes along with them goes with them."""
    there_n = to_numpy(values.is_valid(), np.bool_)
    lengths_b = np.bincount(rows_n[there_n], minlength=len(lengths_b)).astype(np.int64)
    kept = [part if part is None or len(part) != len(there_n) else part[there_n] for part in beside]
    return values.drop_null(), lengths_b, kept
