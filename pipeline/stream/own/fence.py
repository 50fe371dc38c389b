"""The fence of a loop without a store: a lock that its holder may take again, and that any thread may give back.

A cut takes it in one thread, and the thread that reads the last row gives it back: with shards that is another one.
"""

from __future__ import annotations

import threading


class Fence:
    """A context manager."""

    def __init__(self) -> None:
        self._lock, self._counting = threading.Lock(), threading.Lock()
        self._holder: int | None = None
        self._count = 0

    def acquire(self) -> None:
        me = threading.get_ident()
        with self._counting:
            if self._holder == me:
                self._count += 1
                return
        self._lock.acquire()
        with self._counting:
            self._holder, self._count = me, 1

    def release(self) -> None:
        with self._counting:
            self._count -= 1
            if not self._count:
                self._holder = None
                self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()
