"""A lock on a directory, held by one process at a time; the system frees it when that process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from types import TracebackType

from pipeline.files.errors import LockedDirectory, naming

LOCK_NAME = ".lock"


class DirectoryLock:
    """Context manager around ``flock`` on ``PATH/.lock``, which holds the owner's process id.

    The file stays when the lock is freed: removing it would let two processes lock two files of one name. Two objects
    in one process exclude each other too.
    """

    def __init__(self, path: str) -> None:
        """``path`` is an existing directory. Touches nothing yet."""
        self.path = path
        self._fd: int | None = None

    def __enter__(self) -> DirectoryLock:
        """Take the lock at once or raise LockedDirectory."""
        if self._fd is not None:
            raise LockedDirectory(self.path, os.getpid())
        name = os.path.join(self.path, LOCK_NAME)
        with naming(name):
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._take(fd, name)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return self

    def _take(self, fd: int, name: str) -> None:
        with naming(name):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise LockedDirectory(self.path, _owner(fd)) from None
                raise
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the lock. No effect if it is not held."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with contextlib.suppress(OSError):  # only a courtesy to whoever reads the file
                os.ftruncate(fd, 0)
            os.close(fd)


def is_locked(path: str) -> bool:
    """Whether a process holds the lock of the directory ``path`` just now. Writes nothing.

    Asking takes the lock for an instant, but only where its file names a process: so one that is still to come is in nobody's way.
    """
    try:
        fd = os.open(os.path.join(path, LOCK_NAME), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if _owner(fd) is None:
            return False
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _owner(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None
