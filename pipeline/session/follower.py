"""The replica inside a run: follows the run's own stream, as any other would, and measures freshness."""

from __future__ import annotations

import threading
from typing import Any

from pipeline.replica import Replica

JOIN_S = 60.0


class Follower:
    """A thread that applies cuts as they appear. ``finish`` lets it reach the end of the stream.

    It gives way to nobody: on a free machine that gains training nothing, and on a busy one training would wait for whatever lock it
    holds while others run.
    """

    def __init__(self, source: str, pinned_bytes: int) -> None:
        """``source`` as ``Replica`` takes it."""
        self._source, self._pinned_bytes = source, pinned_bytes
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.replica: Replica | None = None

    def start(self) -> None:
        self.replica = Replica(self._source, pinned_bytes=self._pinned_bytes)
        self._thread = threading.Thread(target=self._follow, name="replica")
        self._thread.start()

    def _follow(self) -> None:
        assert self.replica is not None
        try:
            self.replica.follow(self._stop)
        except BaseException as error:
            self._error = error

    def finish(self) -> dict[str, Any]:
        """Stop, apply what is left, and return the replica's figures. Raises what the replica raised."""
        assert self.replica is not None
        assert self._thread is not None
        self._stop.set()
        self._thread.join(JOIN_S)
        if self._error is not None:
            raise self._error
        self.replica.apply_available()
        return {"freshness_ms": self.replica.freshness_ms(), "position": self.replica.position}

    def close(self) -> None:
        """Give everything back; may be called twice, with or without ``finish``."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)
        if self.replica is not None:
            self.replica.close()
            self.replica = None
