"""Follows the stream on a thread of its own, beside the lookups."""

from __future__ import annotations

import threading

from pipeline.replica.errors import ReplicaFailed
from pipeline.replica.replica import Replica
from pipeline.replica.serving.health import Facts


class Follower:
    """From ``start`` to ``close``. What ends it early is kept, not raised: the last whole cut is still answered from."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow")
        self._frames = -1
        self._caught_up = self._closing = False
        self.error: Exception | None = None
        self.ended = threading.Event()
        """Nothing follows any more."""

    @property
    def torn(self) -> bool:
        """Half a cut was applied: there is nothing to answer from."""
        return isinstance(self.error, ReplicaFailed)

    @property
    def facts(self) -> Facts:
        error = None if self.error is None else str(self.error) or type(self.error).__name__
        return Facts(self._replica.position, self._replica.lag, self._caught_up, self._closing, error)

    def start(self) -> None:
        self._thread.start()

    def announce_end(self) -> None:
        """From here on the service says that it is not ready."""
        self._closing = True

    def close(self) -> None:
        """End behind the batch of frames that is applied now. May be called twice, and before ``start``."""
        self._closing = True
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _follow(self) -> None:
        try:
            self._replica.follow(self._stop, on_progress=self._look)
        except Exception as error:  # told by readiness, metrics and exit code
            self.error = error
        finally:
            self.ended.set()

    def _look(self) -> None:
        """After each batch of frames, and after each wait for one that did not come."""
        frames = self._replica.counters.frames
        self._caught_up = frames == self._frames
        self._frames = frames
