"""Waits until something in a directory is written or made: inotify, where the system has it.

It says when to look and not what is there. A file system whose files other machines write to (NFS, say) tells nothing of them:
who waits here looks now and then all the same.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
import threading
from typing import Final

_MODIFY, _MOVED_TO, _CREATE = 0x2, 0x80, 0x100
_EVENTS_BYTES: Final = 1 << 16


class DirectoryWatch:
    """``wait`` belongs to one thread; ``close`` may come from any, and ends a wait."""

    def __init__(self, inotify_fd: int, wake_fd: int) -> None:
        """Owns both; ``watch_directory`` makes them."""
        self._inotify_fd, self._wake_fd = inotify_fd, wake_fd
        self._poll = select.poll()
        for fd in (inotify_fd, wake_fd):
            self._poll.register(fd, select.POLLIN)
        self._using, self._closing = threading.Lock(), threading.Lock()
        self._closed = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for what happened since the last call that returned True; False when ``timeout_s`` passed first, or after ``close``."""
        with self._using:
            if self._closed or not self._poll.poll(max(timeout_s, 0) * 1e3):
                return False
            try:
                os.read(self._inotify_fd, _EVENTS_BYTES)
            except BlockingIOError:  # it was ``close``
                return False
            return True

    def close(self) -> None:
        """May be called twice, by two threads at once too: a descriptor that was closed may be another file's by now."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        os.eventfd_write(self._wake_fd, 1)
        with self._using:
            os.close(self._inotify_fd)
            os.close(self._wake_fd)


def watch_directory(path: str) -> DirectoryWatch | None:
    """None where the system cannot, or there is no such directory. What happens from now on is noticed."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "inotify_init1"):
        return None
    inotify_fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if inotify_fd < 0:
        return None
    if libc.inotify_add_watch(inotify_fd, os.fsencode(path), _MODIFY | _MOVED_TO | _CREATE) < 0:
        os.close(inotify_fd)
        return None
    return DirectoryWatch(inotify_fd, os.eventfd(0, os.EFD_CLOEXEC))
