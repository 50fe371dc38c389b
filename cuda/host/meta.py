"""Which value of a meta column each row of a batch keeps: that of its last occurrence.

Legend: N positions, F features, U distinct pairs, V values that the batch brings, M pairs that get one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cuda.host.batch import plain
from cuda.host.compiled import device, kernel
from cuda.host.machine import prefetch_read, put_bytes
from cuda.host.rows import RowBytes
from cuda.plan import BatchIds, BatchMeta, Int32s, Int64s, UniqueIds

AHEAD = 8


def find_last(batch: BatchIds, unique: UniqueIds, meta: BatchMeta) -> tuple[Int64s, RowBytes]:
    """``Backend.last_values``, on the calling thread."""
    first, last = unique.table_start_t[meta.table : meta.table + 2].tolist()
    values_vb = plain(meta.values_vb, np.uint8)
    rows_m, lines_m = np.empty(last - first, np.int64), np.empty(last - first, np.int64)
    count = last_lines(
        plain(batch.feature_start_f, np.int64),
        plain(meta.first_f, np.int64),
        plain(unique.occurrence_start_u, np.int64),
        plain(unique.occurrences_n, np.int32),
        first,
        last,
        rows_m,
        lines_m,
    )
    values_mb = np.empty((count, values_vb.shape[1]), np.uint8)
    take_lines(values_vb, lines_m[:count], values_mb)
    return rows_m[:count], values_mb


@device
def _feature_of(starts_f: Int64s, n: int) -> Any:
    """The feature that owns position n: the last one that starts at or before it."""
    low, high = 0, starts_f.shape[0] - 1
    while high - low > 1:
        middle = (low + high) // 2
        if starts_f[middle] <= n:
            low = middle
        else:
            high = middle
    return low


@device
def _value_of(starts_f: Int64s, first_f: Int64s, n: int) -> Any:
    """Where the value of position n is; -1 where its feature brings none."""
    f = _feature_of(starts_f, n)
    return first_f[f] + n - starts_f[f] if first_f[f] >= 0 else -1


@kernel
def last_lines(
    starts_f: Int64s,
    first_f: Int64s,
    occurrence_start_u: Int64s,
    occurrences_n: Int32s,
    first: int,
    last: int,
    rows_m: Int64s,
    lines_m: Int64s,
) -> int:
    """For pairs ``first`` to ``last`` find the line of the last value; ``rows_m`` and ``lines_m`` get those that have one.

    ``starts_f`` [F + 1]. Returns how many. A row's occurrences are gone through from the last one back.
    """
    count = 0
    for u in range(first, last):
        at = occurrence_start_u[u + 1] - 1
        while at >= occurrence_start_u[u]:
            line = _value_of(starts_f, first_f, occurrences_n[at])
            if line >= 0:
                rows_m[count] = u
                lines_m[count] = line
                count += 1
                break
            at -= 1
    return count


@kernel
def take_lines(values_vb: RowBytes, lines_m: Int64s, out_mb: RowBytes) -> None:
    """``out_mb[m] = values_vb[lines_m[m]]``"""
    width, last = values_vb.shape[1], lines_m.shape[0] - 1
    for m in range(last + 1):
        prefetch_read(values_vb.ctypes.data + lines_m[min(m + AHEAD, last)] * width, width)
        put_bytes(out_mb.ctypes.data + m * width, values_vb.ctypes.data + lines_m[m] * width, width)
