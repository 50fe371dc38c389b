"""A thread of the log's own, which waits for work on a condition."""

from __future__ import annotations

import threading


class Worker:
    """Base: ``_work`` runs on the thread until ``_closing``, or until it has nothing more to do. ``_changed`` guards both."""

    def __init__(self, name: str) -> None:
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=name)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Let the thread end, and wait for it. May be called twice, and by whoever never started it."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        raise NotImplementedError
