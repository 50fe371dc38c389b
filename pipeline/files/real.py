"""Files of the operating system."""

from __future__ import annotations

import contextlib
import os

from pipeline.files.base import Buffer
from pipeline.files.errors import BrokenFile, naming

READ_PIECE_BYTES = 1 << 30
"""One system call moves less than 2 GiB."""


class RealFile:
    """See ``base.WritableFile``."""

    def __init__(self, path: str, flags: int) -> None:
        self.name = path
        with naming(path):
            self._fd: int | None = os.open(path, flags | os.O_WRONLY | os.O_CLOEXEC, 0o666)
            self.size = os.fstat(self._fd).st_size
        self._broken = False

    def write(self, data: Buffer, *more: Buffer) -> int:
        left, start = [memoryview(part).cast("B") for part in (data, *more)], self.size
        fd = self._usable()
        try:
            with naming(self.name, needed=sum(map(len, left))):
                end = start
                while left:
                    done = os.pwritev(fd, left, end)
                    end += done
                    left = _behind(left, done)
        except BaseException:
            with contextlib.suppress(OSError):  # second to the error that led here, which is raised
                os.ftruncate(fd, start)
            raise
        self.size = end
        return start

    def sync(self) -> None:
        fd = self._usable()
        try:
            with naming(self.name):
                os.fsync(fd)
        except BaseException:
            self._broken = True
            raise

    def close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with naming(self.name):
                os.close(fd)

    def _usable(self) -> int:
        if self._fd is None:
            raise ValueError(f"{self.name}: the file is closed")
        if self._broken:
            raise BrokenFile(self.name)
        return self._fd


class RealFiles:
    """See ``base.Files``. Keeps no state; safe to share by threads."""

    def create(self, path: str) -> RealFile:
        return RealFile(path, os.O_CREAT | os.O_EXCL)

    def open_append(self, path: str) -> RealFile:
        return RealFile(path, 0)

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        with naming(path):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                left = max(os.fstat(fd).st_size - offset, 0)
                return _read_all(fd, offset, left if size is None else min(size, left))
            finally:
                os.close(fd)

    def size(self, path: str) -> int:
        with naming(path):
            return os.stat(path).st_size

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def list(self, directory: str) -> list[str]:
        with naming(directory):
            return sorted(os.listdir(directory))

    def make_dirs(self, path: str) -> None:
        path = os.path.abspath(path)
        if os.path.isdir(path):
            return
        self.make_dirs(os.path.dirname(path))
        with naming(path), contextlib.suppress(FileExistsError):
            os.mkdir(path)
        if not os.path.isdir(path):
            raise NotADirectoryError(20, "a file has the name of the directory to make", path)
        self.sync_dir(os.path.dirname(path))

    def rename(self, old: str, new: str) -> None:
        with naming(old):
            os.replace(old, new)

    def link(self, old: str, new: str) -> None:
        with naming(new):
            os.link(old, new)

    def remove(self, path: str) -> None:
        with naming(path):
            os.unlink(path)

    def remove_dir(self, path: str) -> None:
        with naming(path):
            os.rmdir(path)

    def sync_dir(self, path: str) -> None:
        with naming(path):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def truncate(self, path: str, size: int) -> None:
        with naming(path):
            os.truncate(path, size)


def _behind(parts: list[memoryview], done: int) -> list[memoryview]:
    """What is left of some parts when so many bytes of them are dealt with."""
    for number, part in enumerate(parts):
        if done < len(part):
            return [part[done:], *parts[number + 1 :]]
        done -= len(part)
    return []


def _read_all(fd: int, offset: int, size: int) -> bytes:
    pieces = []
    while size > 0:
        piece = os.pread(fd, min(size, READ_PIECE_BYTES), offset)
        if not piece:
            break
        pieces.append(piece)
        offset, size = offset + len(piece), size - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
