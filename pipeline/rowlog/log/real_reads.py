"""Reads of records by file descriptor: ``row_reads.RowReads`` on the operating system's files."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Mapping

from pipeline.files.errors import naming
from pipeline.rowlog.errors import ReadFailed
from pipeline.rowlog.log.row_reads import Int32s, Int64s, RowBytes
from pipeline.rowlog.random_reads import RandomReads


class RealReads:
    """``direct``: past the page cache, where the file system allows it."""

    def __init__(self, depth: int = 64, direct: bool = False) -> None:
        self._flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECT if direct else 0)
        self._reads = RandomReads(depth, direct)
        self._lock = threading.Lock()
        self._paths: dict[int, str] = {}

    def stats(self) -> Mapping[str, int]:
        counted = self._reads.counters
        return {"reads": counted.reads, "read_bytes": counted.bytes_read, "read_rows": counted.rows}

    def open(self, path: str) -> int:
        with naming(path):
            number = os.open(path, self._flags)
        if not self._flags & os.O_DIRECT:
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_RANDOM)  # reading ahead would bring rows nobody asked for
        with self._lock:
            self._paths[number] = path
        return number

    def give_back(self, number: int) -> None:
        with self._lock:
            path = self._paths.pop(number)
        with naming(path):
            os.close(number)

    def read(self, files_n: Int32s, offsets_n: Int64s, out_nb: RowBytes) -> None:
        try:
            self._reads.read(files_n, offsets_n, out_nb.shape[1], out_nb)
        except ReadFailed as error:
            path = self._paths.get(error.fd, f"file {error.fd}")
            raise OSError(error.errno or errno.EIO, f"{error} ({path})", path) from error

    def close(self) -> None:
        self._reads.close()
        with self._lock:
            numbers, self._paths = list(self._paths), {}
        for number in numbers:
            with contextlib.suppress(OSError):  # it was open for reading only
                os.close(number)
