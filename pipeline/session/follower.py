"""The replica inside a run: follows the run's own stream, as any other would, and measures freshness."""

from __future__ import annotations

import threading
from typing import Any

from pipeline.replica import Replica
from pipeline.replica.warm import warm_up

JOIN_S = 60.0


class Follower:
    """A thread that applies cuts as they appear, from ``begin`` on: what lies there before may be another run's, which this one is about
    to replace. ``finish`` lets it reach the end of the stream.

    It gives way to nobody: on a free machine that gains training nothing, and on a busy one training would wait for whatever lock it
    holds while others run.
    """

    def __init__(self, source: str, pinned_bytes: int) -> None:
        """``source`` as ``Replica`` takes it."""
        self._source, self._pinned_bytes = source, pinned_bytes
        self._stop, self._begun = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.replica: Replica | None = None

    def start(self) -> None:
        self.replica = Replica(self._source, pinned_bytes=self._pinned_bytes)
        self._thread = threading.Thread(target=self._follow, name="replica")
        self._thread.start()

    def begin(self) -> None:
        """The stream is this run's. Any thread; quick, and of no effect but the first time."""
        if not self._begun.is_set():
            self._begun.set()

    def _follow(self) -> None:
        assert self.replica is not None
        try:
            warm_up()
            self._begun.wait()
            self.replica.follow(self._stop)
        except BaseException as error:
            self._error = error

    def finish(self) -> dict[str, Any]:
        """Stop, apply what is left, and return the replica's figures. Raises what the replica raised."""
        assert self.replica is not None
        assert self._thread is not None
        self._end()
        if self._error is not None:
            raise self._error
        self.replica.apply_available()
        return {"freshness_ms": self.replica.freshness_ms(), "position": self.replica.position}

    def close(self) -> None:
        """Give everything back; may be called twice, with or without ``finish``."""
        self._end()
        if self.replica is not None:
            self.replica.close()
            self.replica = None

    def _end(self) -> None:
        self._stop.set()
        self._begun.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)
