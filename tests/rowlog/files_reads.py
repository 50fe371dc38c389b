"""Reads of records through ``Files``, one by one: for doubles of the disk, which have no file descriptors."""

from __future__ import annotations

import errno
import threading
from collections.abc import Mapping

import numpy as np

from pipeline.files import Files
from pipeline.rowlog.log.row_reads import Int32s, Int64s, RowBytes


class FilesReads:
    """See ``RowReads``."""

    def __init__(self, files: Files) -> None:
        self._files, self._lock = files, threading.Lock()
        self.paths: dict[int, str] = {}
        self._next = 0

    def open(self, path: str) -> int:
        self._files.size(path)
        with self._lock:
            self._next += 1
            self.paths[self._next] = path
            return self._next

    def give_back(self, number: int) -> None:
        with self._lock:
            del self.paths[number]

    def read(self, files_n: Int32s, offsets_n: Int64s, out_nb: RowBytes) -> None:
        for row, (number, offset) in enumerate(zip(files_n.tolist(), offsets_n.tolist(), strict=True)):
            path = self.paths.get(number)
            if path is None:
                raise OSError(errno.EBADF, "a read of a file that is not open", f"file {number}")
            data = self._files.read(path, offset, out_nb.shape[1])
            if len(data) != out_nb.shape[1]:
                raise OSError(0, f"{len(data)} bytes at {offset}", path)
            out_nb[row] = np.frombuffer(data, dtype=np.uint8)

    def stats(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None:
        self.paths = {}
