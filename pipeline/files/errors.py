"""What can go wrong with files. All are OSErrors, so that code that handles those handles these.

Foreign errors are mapped once, here: a full disk becomes ``DiskFull``, and every other OSError gets the path it lacks.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(OSError):
    """The disk, or a quota on it, has no room. What was written and synced before stays readable."""

    def __init__(self, path: str, needed: int, code: int = errno.ENOSPC) -> None:
        what = f"{needed} more bytes did" if needed else "this did"
        advice = "free some space there or choose a directory on a larger disk"
        super().__init__(code, f"the disk is full: {what} not fit; {advice}", path)
        self.path = path
        self.needed = needed
        """Bytes of the write that failed; 0 for other calls."""


class LockedDirectory(OSError):
    """Another process (or another object in this one) holds the directory's lock."""

    def __init__(self, path: str, pid: int | None) -> None:
        holder = f"process {pid}" if pid is not None else "another process"
        super().__init__(
            errno.EAGAIN, f"locked by {holder}: wait until it ends, stop it, or choose another directory", path
        )
        self.path = path
        self.pid = pid
        """Process that holds the lock; None if it did not say."""


class BrokenFile(OSError):
    """A sync of this file failed before, so nobody knows which of its bytes are durable. It can only be closed."""

    def __init__(self, path: str) -> None:
        super().__init__(
            errno.EIO, "an earlier sync of this file failed; close it and write its data to another file", path
        )
        self.path = path


@contextmanager
def naming(path: str, needed: int = 0) -> Iterator[None]:
    """Map an OSError raised inside: DiskFull where the disk is full, otherwise the same error carrying ``path``."""
    try:
        yield
    except (DiskFull, LockedDirectory, BrokenFile):
        raise
    except OSError as error:
        if error.errno in FULL_DISK:
            raise DiskFull(path, needed, error.errno) from error
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, path) from error
        raise
