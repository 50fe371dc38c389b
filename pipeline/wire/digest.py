"""The digest of a cut: what a replica holds after decoding, so that it can check what it applied.

Each row counts ``rows_digest`` of its table, id, step and decoded weights (float32, little endian); each further
column that rides along counts as a row of table ``TABLE/COLUMN``; each tombstone counts as a row of no bytes and
version 0. The digest is the sum of all, mod 2**64: the order of rows and frames does not matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.rows.digest import rows_digest
from pipeline.wire.frames import TableRows

MASK = (1 << 64) - 1


def part_digest(part: TableRows, weights_nd: npt.NDArray[np.float32]) -> int:
    """The share of one part of a frame in its cut's digest. ``weights_nd`` are its rows, decoded; C-contiguous."""
    return (rows_digest(part.table, part.ids_n, _bytes_2d(weights_nd), part.versions_n) + extra_digest(part)) & MASK


def extra_digest(part: TableRows) -> int:
    """The share of what a part has besides weights: further columns, and tombstones."""
    total = 0
    for name, values in part.columns.items():
        total += rows_digest(f"{part.table}/{name}", part.ids_n, _bytes_2d(values), part.versions_n)
    count = len(part.tombstones_m)
    if count:
        nothing, never = np.empty((count, 0), dtype=np.uint8), np.zeros(count, dtype=np.int64)
        total += rows_digest(part.table, part.tombstones_m, nothing, never)
    return total


def _bytes_2d(values_nd: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    count, width = values_nd.shape
    return np.ascontiguousarray(values_nd).reshape(-1).view(np.uint8).reshape(count, width * values_nd.itemsize)
