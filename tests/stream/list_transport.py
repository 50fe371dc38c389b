"""A transport in memory: remembers every frame, and how much of it is still there and acknowledged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.wire import Position, Subscription


class ListTransport:
    name = "list"

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.header = b""
        self._headers: dict[int, bytes] = {}
        self.synced = 0
        self.retained = 0
        self.fails: OSError | None = None
        """Raised by the next ``publish``."""

    @property
    def epoch(self) -> str:
        return "memory"

    @property
    def end(self) -> Position:
        return Position(0, len(self.frames))

    def claim(self) -> str:
        return self.epoch

    def begin(self, header: bytes) -> Position:
        self.header = header
        self._headers[len(self.frames)] = header
        return self.publish([header], sync=True)

    def publish(self, frames: Sequence[bytes], *, sync: bool) -> Position:
        error, self.fails = self.fails, None
        if error is not None:
            raise error
        self.frames += frames
        if sync:
            self.synced = len(self.frames)
        return self.end

    def subscribe(self, position: Position | None) -> Subscription:
        raise NotImplementedError("tests read .frames")

    def newest_first(self) -> Iterator[list[bytes]]:
        if self.frames:
            yield self.held

    def retain_from(self, position: Position) -> int:
        freed = sum(len(frame) for frame in self.frames[self.retained : position.offset])
        self.retained = max(self.retained, position.offset)
        return freed

    @property
    def held(self) -> list[bytes]:
        """What a late reader gets."""
        before = [header for at, header in self._headers.items() if at <= self.retained]
        return [*before[-1:], *self.frames[self.retained :]]

    def close(self) -> None:
        """Nothing to free."""
