"""A transport in memory that fails as brokers do: on command it refuses, dies half way, loses its answer, or loses its data."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Literal

from pipeline.wire import Position, StreamLost, TransportError
from tests.stream.list_transport import ListTransport

Failure = Literal["refuse", "half", "answer", "claim"]
FAILURES: tuple[Failure, ...] = ("refuse", "half", "answer", "claim")


class BrokenTransport(ListTransport):
    """``on_frame`` hears each frame that readers can read, as it appears."""

    def __init__(self, on_frame: Callable[[bytes], object] = lambda _data: None) -> None:
        super().__init__()
        self.next_failure: Failure | None = None
        self.is_down = False
        """Everything fails while it is true."""
        self.blocked: threading.Event | None = None
        """``publish`` waits for it."""
        self.publishing = threading.Event()
        """Somebody called ``publish``."""
        self.claims = 0
        self._on_frame = on_frame
        self._lives, self._claimed = 1, 0

    @property
    def epoch(self) -> str:
        return f"life-{self._lives}"

    def lose(self) -> None:
        """All that was published is gone."""
        self._lives += 1
        self.frames, self.header, self.synced, self.retained = [], b"", 0, 0

    def claim(self) -> str:
        if self.is_down or self._fails("claim"):
            raise TransportError("the broker does not answer")
        self._claimed = self._lives
        self.claims += 1
        return self.epoch

    def publish(self, frames: Sequence[bytes], *, sync: bool) -> Position:
        self.publishing.set()
        if self.blocked is not None:
            assert self.blocked.wait(60)
        if self.is_down or self._fails("refuse"):
            raise TransportError("the broker refuses")
        if self._claimed != self._lives:
            raise StreamLost("memory", f"life {self._claimed} is over, this is {self.epoch}")
        if self._fails("half"):
            self._take(frames[: len(frames) // 2])
            raise OSError("the connection broke")
        self._take(frames)
        if sync:
            self.synced = len(self.frames)
        if self._fails("answer"):
            raise TimeoutError("no answer came")
        return self.end

    def _take(self, frames: Sequence[bytes]) -> None:
        self.frames += frames
        for data in frames:
            self._on_frame(data)

    def _fails(self, failure: Failure) -> bool:
        if self.next_failure != failure:
            return False
        self.next_failure = None
        return True
