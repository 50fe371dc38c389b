"""One reader of a stream in a broker: it waits, joins fragments, connects again, and notices what is not there any more."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from pipeline.wire.broker.broker import Broker, StreamState
from pipeline.wire.broker.entries import Entry, Joiner
from pipeline.wire.errors import (
    BrokerUnreachable,
    PositionBeyondEnd,
    StreamCorrupt,
    StreamReplaced,
    StreamTrimmed,
    TransportClosed,
    TransportError,
)
from pipeline.wire.transport import Position

LOG = logging.getLogger("rowstream.wire")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 1.0
"""Between two attempts to find the stream: each twice as long as the one before."""
Frames = list[tuple[Position, bytes]]


class BrokerSubscription:
    """See ``transport.Subscription``. ``trouble`` tells why nothing comes at the moment, in words; ``reconnects`` counts."""

    def __init__(self, broker: Broker, position: Position | None, max_frame_bytes: int) -> None:
        self.trouble: str | None = None
        self.reconnects = 0
        self._place = broker.place
        self._reader = broker.reader()
        self._position = position
        self._stamp = None if position is None else position.segment
        self._last = None if position is None else position.offset
        self._joiner = Joiner(self._place, max_frame_bytes)
        self._gap = 0
        self._open = False
        self._was_open = False
        self._pause_s = FIRST_PAUSE_S
        self._lost: BrokerUnreachable | None = None
        self._failure: TransportError | None = None
        self._closing = threading.Event()
        self._reading = threading.Lock()

    def next(self, timeout: float | None) -> Frames | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._reading:
            while True:
                self._check_open()
                if self._failure is not None:
                    raise self._failure.with_traceback(None)
                left_s = 60.0 if deadline is None else max(deadline - time.monotonic(), 0.0)
                more, frames = self._read(left_s)
                if frames:
                    return frames
                if not more and deadline is not None and time.monotonic() >= deadline:
                    self._check_open()
                    return None

    def check_end(self) -> None:
        """A broker keeps whole entries only. A frame that broke off at the end is sent again by the next writer, or given up. Raises
        BrokerUnreachable where nobody can say what the end is.
        """
        if self._lost is not None:
            raise self._lost.with_traceback(None)

    def close(self) -> None:
        self._closing.set()
        self._reader.wake()
        with self._reading:
            self._reader.close()

    def _read(self, timeout: float) -> tuple[bool, Frames]:
        """Whether there may be more at once, and the frames that came whole."""
        try:
            if not self._open and not self._find():
                self._pause(timeout)
                return False, []
            entries = self._reader.read(timeout)
            self._lost, self._pause_s = None, FIRST_PAUSE_S
            return bool(entries), self._join(entries)
        except BrokerUnreachable as error:
            first = self._lost is None
            self._lose(error)
            if not first:
                self._pause(timeout)
            return first, []  # the first time it is looked for again at once
        except TransportError as error:
            if not self._closing.is_set():
                self._failure = error
            raise

    def _find(self) -> bool:
        state = self._reader.open(self._last)
        if state is None:
            self.trouble = f"{self._place}: no stream there yet"
            return False
        self._check(state)
        if self.trouble is not None and self._was_open:
            self.reconnects += 1
            LOG.warning("%s: the connection is back; reading on", self._place)
        self._stamp, self._open, self._was_open = state.stamp, True, True
        self.trouble = None
        return True

    def _check(self, state: StreamState) -> None:
        if self._last is None:
            return
        if state.stamp != self._stamp:
            raise StreamReplaced(self._place, f"of {self._stamp}", f"of {state.stamp}")
        if state.last < self._last and self._was_open:
            raise StreamReplaced(self._place, f"up to {self._last}", f"up to {state.last}")
        if state.last < self._last:
            raise PositionBeyondEnd(self._place, str(self._last), str(state.last))
        if state.first > self._last + 1:
            raise StreamTrimmed(self._place, self._last + 1, state.first, unit="message")

    def _join(self, entries: Sequence[Entry]) -> Frames:
        """The frames up to a gap. Behind one the stream is looked for again, which tells a reader whether retention overtook it."""
        frames: Frames = []
        assert self._stamp is not None
        for entry in entries:
            if self._last is not None and entry.number <= self._last:
                continue
            if self._last is not None and entry.number > self._last + 1:
                self._note_gap(self._last + 1)
                break
            frame = self._joiner.add(entry)
            self._last = entry.number
            if frame is not None:
                frames.append((Position(self._stamp, entry.number), frame))
        return frames

    def _note_gap(self, number: int) -> None:
        if self._gap == number:
            raise StreamCorrupt(self._place, 0, number, "it is not there, and what follows is", unit="message")
        self._gap, self._open = number, False

    def _lose(self, error: BrokerUnreachable) -> None:
        if self.trouble is None and not self._closing.is_set():
            LOG.warning("%s; trying again", error)
        self.trouble, self._lost, self._open = str(error), error, False

    def _pause(self, timeout: float) -> None:
        if timeout > 0:
            self._closing.wait(min(self._pause_s, timeout))
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise TransportClosed(f"{self._place}: the subscription was closed")
