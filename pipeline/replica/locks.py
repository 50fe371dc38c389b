"""A lock for one writer and many readers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType


class ReadWriteLock:
    """Readers run together; a writer runs alone, and readers that come while it waits come after it. Not re-entrant."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._readers = 0
        self._writing = False
        self._waiting_writers = 0
        self.read = _Side(self._begin_read, self._end_read)
        self.write = _Side(self._begin_write, self._end_write)

    def _begin_read(self) -> None:
        with self._changed:
            while self._writing or self._waiting_writers:
                self._changed.wait()
            self._readers += 1

    def _end_read(self) -> None:
        with self._changed:
            self._readers -= 1
            if not self._readers:
                self._changed.notify_all()

    def _begin_write(self) -> None:
        with self._changed:
            self._waiting_writers += 1
            try:
                while self._writing or self._readers:
                    self._changed.wait()
            finally:
                self._waiting_writers -= 1
            self._writing = True

    def _end_write(self) -> None:
        with self._changed:
            self._writing = False
            self._changed.notify_all()


class _Side:
    """``with lock.read:`` or ``with lock.write:``."""

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._begin, self._end = begin, end

    def __enter__(self) -> None:
        self._begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
