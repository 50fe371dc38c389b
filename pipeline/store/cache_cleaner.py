"""The thread that keeps part of a cache tier clean, while whoever puts rows does not wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pipeline.store.errors import CleaningFailed


class Cleaner:
    """Calls ``clean`` when woken, again and again until it returns 0. An error waits for the next ``check``; after it, the
    thread tries again when it is woken.
    """

    def __init__(self, clean: Callable[[], int], below: str) -> None:
        self._clean, self._below = clean, below
        self._woken = threading.Event()
        self._closing = False
        self._failed: Exception | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=f"clean-into-{below}")

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There may be something to clean. Never waits."""
        if not self._woken.is_set():
            self._woken.set()

    def check(self) -> None:
        """Raise CleaningFailed if the thread met an error since the last call."""
        with self._lock:
            failed, self._failed = self._failed, None
        if failed is not None:
            raise CleaningFailed(self._below, failed) from failed

    def close(self) -> None:
        """End the thread behind what it is at. May be called twice, and before ``start``."""
        self._closing = True
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            self._woken.wait()
            self._woken.clear()
            if self._closing:
                return
            try:
                while not self._closing and self._clean():
                    pass
            except Exception as error:
                with self._lock:
                    self._failed = error
