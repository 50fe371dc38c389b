"""Bytes in flight, bounded: whoever needs room waits a while for it, and then is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.replica.serving.errors import NoRoom


class Room:
    """Any thread. Holds no memory itself: it counts."""

    def __init__(self, limit_bytes: int, wait_s: float) -> None:
        self.limit_bytes, self.wait_s = limit_bytes, wait_s
        self._used = 0
        self._freed = threading.Condition()

    @property
    def used_bytes(self) -> int:
        return self._used

    @contextmanager
    def take(self, nbytes: int) -> Iterator[None]:
        """Room for ``nbytes`` until the block ends. Raises NoRoom after ``wait_s``, or at once where there never is enough."""
        with self._freed:
            possible = nbytes <= self.limit_bytes
            if not possible or not self._freed.wait_for(lambda: self._used + nbytes <= self.limit_bytes, self.wait_s):
                raise NoRoom(nbytes, self.limit_bytes)
            self._used += nbytes
        try:
            yield
        finally:
            with self._freed:
                self._used -= nbytes
                self._freed.notify_all()
