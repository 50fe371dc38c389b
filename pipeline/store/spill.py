"""Where a shadow keeps rows that memory has no room for: one append-only file of packed rows, read back by number."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.store.row_blocks import RowBytes, fetch

if TYPE_CHECKING:
    from cuda.plan import Int64s
    from pipeline.files import Files, WritableFile

GAP_BYTES: Final = 1 << 16
"""Rows at most this far apart are read in one piece."""
PIECE_BYTES: Final = 1 << 22


class SpillFile:
    """Rows of ``row_bytes`` each. One thread appends; others may read beside it what was appended before."""

    def __init__(self, files: Files, path: str, row_bytes: int) -> None:
        self._files, self._path, self._row_bytes = files, path, row_bytes
        self._file: WritableFile | None = None
        self.num_rows = 0

    def append(self, rows_nb: RowBytes) -> int:
        """Write rows; returns the number of the first. Raises OSError: then nothing of them is counted, and the file
        is not used further by the caller.
        """
        if self._file is None:
            self._file = self._files.create(self._path)
        first = self.num_rows
        self._file.write(np.ascontiguousarray(rows_nb).data.cast("B"))
        self.num_rows += rows_nb.shape[0]
        return first

    def read(self, numbers_n: Int64s, rows_nb: RowBytes) -> None:
        """Copy rows by number into ``rows_nb`` [n, at most row_bytes]."""
        order = np.argsort(numbers_n, kind="stable")
        sorted_n = numbers_n[order]
        for start, stop in self._pieces(sorted_n):
            first, last = int(sorted_n[start]), int(sorted_n[stop - 1])
            data = self._files.read(self._path, first * self._row_bytes, (last + 1 - first) * self._row_bytes)
            if len(data) != (last + 1 - first) * self._row_bytes:
                raise OSError(f"{self._path}: ends before row {last}; the spill file was cut while it was in use")
            piece = np.frombuffer(data, dtype=np.uint8)
            found = np.empty((stop - start, rows_nb.shape[1]), dtype=np.uint8)
            bases_c = np.array([piece.ctypes.data], dtype=np.int64)
            fetch(sorted_n[start:stop] - first, bases_c, 62, self._row_bytes, found)
            rows_nb[order[start:stop]] = found

    def _pieces(self, sorted_n: Int64s) -> Iterator[tuple[int, int]]:
        """Ranges of ``sorted_n`` to read at once: small gaps, bounded length."""
        per_piece = max(PIECE_BYTES // self._row_bytes, 1)
        group_n = sorted_n // per_piece
        far = (np.diff(sorted_n) > GAP_BYTES // self._row_bytes) | (np.diff(group_n) > 0)
        cuts = np.concatenate([[0], np.flatnonzero(far) + 1, [sorted_n.shape[0]]]).tolist()
        return pairwise(cuts)

    def close(self) -> None:
        """Remove the file. May be called twice."""
        if self._file is not None:
            self._file.close()
            self._files.remove(self._path)
            self._file = None
