"""A chunk of rows as bytes: ids int64 [n], then versions int64 [n], then packed rows uint8 [n, row_bytes], little
endian.

A chunk is read and checked as one, so its size bounds a reader's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.rows.layout import RowLayout

Int64s = npt.NDArray[np.int64]
RowBytes = npt.NDArray[np.uint8]
CHUNK_BYTES = 4 << 20
KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Rows of one table: ids ascending, distinct. Owns its arrays."""

    ids_n: Int64s
    rows_nb: RowBytes
    versions_n: Int64s

    def __iter__(self) -> Any:
        """Unpacks as ``ids_n, rows_nb, versions_n``."""
        return iter((self.ids_n, self.rows_nb, self.versions_n))


def rows_per_chunk(layout: RowLayout) -> int:
    return max(1, CHUNK_BYTES // chunk_bytes(layout, 1))


def chunk_bytes(layout: RowLayout, num_rows: int) -> int:
    return num_rows * (KEY_BYTES + layout.row_bytes)


def encode_chunk(ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s) -> bytes:
    return b"".join((ids_n.tobytes(), versions_n.tobytes(), rows_nb.tobytes()))


def decode_chunk(data: bytes, num_rows: int) -> RowChunk:
    """``data`` has the length of ``num_rows`` rows. Copies, so that the arrays can be written to."""
    keys = np.frombuffer(data, dtype=np.int64, count=2 * num_rows)
    rows = np.frombuffer(data, dtype=np.uint8, offset=KEY_BYTES * num_rows)
    return RowChunk(keys[:num_rows].copy(), rows.reshape(num_rows, -1).copy(), keys[num_rows:].copy())
