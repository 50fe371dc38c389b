"""The thread that writes for the log: what was put is visible at once and reaches its file soon after.

Rules.

1. Tasks run one by one, in the order in which they came. A task that fails, or ``fail``, ends the thread: everything that
   waits, and whoever comes later, is told why.
2. Bytes that wait are bounded: ``wait_for_room`` holds back those who bring more. It is called without any lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from pipeline.rowlog.log.errors import LogClosed, LogFailed
from pipeline.rowlog.log.worker import Worker

Task = Callable[[], None]


class WriteBehind(Worker):
    """Started by ``start``; ``close`` ends it behind what was queued."""

    def __init__(self, name: str, limit_bytes: int) -> None:
        super().__init__(f"rowlog-write-{name}")
        self.name, self.limit_bytes = name, limit_bytes
        self._tasks: deque[tuple[Task, int]] = deque()
        self._waiting_bytes = 0
        self._failed: BaseException | None = None
        self.written_bytes = 0

    def add(self, task: Task, nbytes: int = 0) -> None:
        """Queue a task that writes so many bytes. Never waits."""
        with self._changed:
            if self._closing and threading.current_thread() is not self._thread:
                raise LogClosed(self.name)
            if self._failed is not None:
                return  # whoever waits for it is told
            self._tasks.append((task, nbytes))
            self._waiting_bytes += nbytes
            self._changed.notify_all()

    def wait_for_room(self) -> None:
        """Block while more than ``limit_bytes`` wait. Raises LogFailed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting_bytes <= self.limit_bytes or self._failed is not None)
        self.check()

    def drain(self) -> None:
        """Block until everything queued before this call is done. Raises LogFailed."""
        done = threading.Event()
        self.add(done.set)
        with self._changed:
            self._changed.wait_for(lambda: done.is_set() or self._failed is not None)
        self.check()

    def fail(self, error: BaseException) -> None:
        """Tell everyone who waits, and whoever comes later, that something else has failed for good."""
        with self._changed:
            self._failed = self._failed or error
            self._tasks.clear()
            self._changed.notify_all()

    def check(self) -> None:
        if self._failed is not None:
            raise LogFailed(self.name, self._failed) from self._failed

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._tasks or self._closing or self._failed is not None)
                if not self._tasks:
                    return
                task, nbytes = self._tasks.popleft()
            try:
                task()
            except BaseException as error:
                self.fail(error)
                return
            with self._changed:
                self._waiting_bytes -= nbytes
                self.written_bytes += nbytes
                self._changed.notify_all()
