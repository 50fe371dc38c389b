"""The transport over a broker: what of it does not depend on which broker that is.

The walk: ``claim`` makes a link and fences out any earlier writer; ``begin`` starts a part of the stream with the generation's header;
``publish`` takes frames into the window, splits and sends them, and starts another part, with the header again, every ``part_bytes``.
Behind an error the next call first resyncs: it learns from the broker what had arrived, and sends on from there.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator, Sequence

from pipeline.wire.broker.broker import Broker, Link, StreamState
from pipeline.wire.broker.entries import FRAME, HEADER, join, split
from pipeline.wire.broker.options import BrokerOptions
from pipeline.wire.broker.subscription import BrokerSubscription
from pipeline.wire.broker.window import Window
from pipeline.wire.errors import (
    StreamAbsent,
    StreamLost,
    TransportClosed,
    TransportError,
    WriterFenced,
)
from pipeline.wire.transport import Position


class BrokerTransport:
    """See ``transport.Transport``. Safe to share by threads. Owns ``broker``."""

    def __init__(self, broker: Broker, options: BrokerOptions) -> None:
        """Connects nowhere yet."""
        self.name = broker.kind
        self.place = broker.place
        self.resyncs = 0
        """How often the writer had to find out what had arrived."""
        self._broker, self._options = broker, options
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._state, self._last = StreamState("", 0, 1, 0), 0
        self._header: bytes | None = None
        self._window = Window()
        self._part_nbytes = 0
        self._part_starts: list[int] = []
        self._broken = False
        self._over: WriterFenced | StreamLost | None = None
        self._readers: weakref.WeakSet[BrokerSubscription] = weakref.WeakSet()
        self._closing = self._closed = False

    @property
    def epoch(self) -> str:
        """Raises StreamAbsent, BrokerUnreachable, BrokerRefuses."""
        with self._lock:
            self._check_open()
            if self._link is not None and self._over is None:
                return self._state.epoch
        state = self._broker.look()
        if state is None:
            raise StreamAbsent(self.place)
        return state.epoch

    @property
    def end(self) -> Position:
        with self._lock:
            self._check_claimed()
            return self._end()

    @property
    def waiting_bytes(self) -> int:
        """Bytes of frames that were taken and are not acknowledged."""
        return self._window.nbytes

    def claim(self) -> str:
        with self._lock:
            self._check_open()
            if self._link is not None and not isinstance(self._over, StreamLost):
                self._check_served()
                return self._state.epoch
            link = self._broker.link()
            try:
                state = link.claim(lost=None if self._link is None else self._state)
            except BaseException:
                link.close()
                raise
            self._unlink()
            self._link, self._over, self._broken = link, None, False
            self._state, self._last = state, state.last
            self._header, self._window, self._part_starts = None, Window(), []
            return state.epoch

    def begin(self, header: bytes) -> Position:
        with self._lock:
            link = self._check_claimed()
            with self._noticing():
                self._recover(link, ())
                self._send_waiting(link)
                self._start_part(link, header)
                link.wait(self._last)
                self._header = header
            return self._end()

    def publish(self, frames: Sequence[bytes], *, sync: bool) -> Position:
        with self._lock:
            link = self._check_claimed()
            if self._header is None:
                raise TransportError(f"{self.place}: begin() comes before publish()")
            for frame in frames:
                self._check_size(frame)
            with self._noticing():
                known = self._recover(link, frames)
                self._send_waiting(link)
                for frame in frames[known:]:
                    self._window.take(frame)
                    self._send_waiting(link)
                if sync:
                    link.wait(self._last)
                    self._window.acknowledge(self._last)
            self._window.settle()
            return self._end()

    def subscribe(self, position: Position | None) -> BrokerSubscription:
        subscription = BrokerSubscription(self._broker, position, self._options.max_frame_bytes)
        with self._lock:
            self._check_open()
            self._readers.add(subscription)
        return subscription

    def newest_first(self) -> Iterator[list[bytes]]:
        with self._lock:
            self._check_open()
            if self._link is not None and not self._broken:
                with self._noticing():
                    self._link.wait(self._last)
        for entries in self._broker.parts():
            frames = list(join(self.place, entries, self._options.max_frame_bytes))
            if frames:
                yield frames

    def retain_from(self, position: Position) -> int:
        """Forgets whole parts, and only where this writer has begun a later one: it knows where its own begin."""
        with self._lock:
            link = self._check_claimed()
            passed = [start for start in self._part_starts if start <= min(position, self._end()).offset]
            if not passed or position.segment != self._state.stamp:
                return 0
            with self._noticing():
                self._recover(link, None)
                freed = link.trim(passed[-1])
            self._part_starts = self._part_starts[len(passed) - 1 :]
            return freed

    def close(self) -> None:
        """Ends a call that waits in another thread. Else it gives what was sent a moment to arrive."""
        self._closing = True
        if not self._lock.acquire(blocking=False):
            if (link := self._link) is not None:
                link.abort()
            self._lock.acquire()
        try:
            self._close()
        finally:
            self._lock.release()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for reader in list(self._readers):
            reader.close()
        try:
            if self._link is not None and not self._broken and self._over is None:
                with contextlib.suppress(TransportError):
                    self._link.wait(self._last)
        finally:
            self._unlink()
            self._broker.close()

    def _recover(self, link: Link, frames: Sequence[bytes] | None) -> int:
        """Behind an error: find out what had arrived. None: nothing is to be published, so what is disputed stays so. Returns how many of
        ``frames`` were taken already.
        """
        if not self._broken or frames is None:
            return 0
        resynced = link.resync()
        self.resyncs += 1
        known = self._window.retry(resynced.stored, frames)
        self._last = resynced.last
        self._broken = False  # from here on only a new error breaks it
        if self._header is not None:
            self._start_part(link, self._header)
        return known

    def _send_waiting(self, link: Link) -> None:
        while (frame := self._window.unsent) is not None:
            if self._header is not None and self._part_nbytes >= self._options.part_bytes:
                self._start_part(link, self._header)
            self._send(link, FRAME, frame)
            self._window.note_sent(self._last)
            self._window.acknowledge(link.acknowledged)
            while (
                self._window.nbytes > self._options.window_bytes and self._window.unsent is None and len(self._window)
            ):
                link.wait(self._window.oldest)
                self._window.acknowledge(link.acknowledged)

    def _start_part(self, link: Link, header: bytes) -> None:
        """Behind all that was sent: a part begins only when what came before it is stored."""
        link.wait(self._last)
        self._window.acknowledge(self._last)
        link.begin_part()
        start = self._last + 1
        self._send(link, HEADER, header)
        self._part_starts.append(start)
        self._part_nbytes = len(header)

    def _send(self, link: Link, kind: str, frame: bytes) -> None:
        entries = split(kind, frame, self._last, min(link.payload_bytes, self._options.payload_bytes))
        link.send(entries)
        self._last = entries[-1].number
        self._part_nbytes += len(frame)

    @contextlib.contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except TransportError as error:
            self._broken = True
            if isinstance(error, (WriterFenced, StreamLost)):
                self._over = error
            raise

    def _end(self) -> Position:
        return Position(self._state.stamp, self._last)

    def _unlink(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _check_size(self, frame: bytes) -> None:
        if len(frame) > self._options.max_frame_bytes:
            raise TransportError(
                f"{self.place}: a frame of {len(frame)} bytes; readers accept {self._options.max_frame_bytes}"
            )

    def _check_open(self) -> None:
        if self._closing:
            raise TransportClosed(f"{self.place}: the transport was closed")

    def _check_served(self) -> None:
        if self._over is not None:
            raise self._over.with_traceback(None)

    def _check_claimed(self) -> Link:
        self._check_open()
        if self._link is None:
            raise TransportError(f"{self.place}: only the process that called claim() may write")
        self._check_served()
        return self._link
