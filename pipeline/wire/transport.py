"""The Transport interface: what carries frames from one writer to any number of readers, in order.

A transport knows frames as bytes only. Methods block and belong on a lane. ``publish`` may be called by several
threads at once: each call's frames stay together, and calls are ordered as they return.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class Position(NamedTuple):
    """A place between two frames of one stream. Positions only compare; what the numbers mean belongs to the transport.

    The ``file`` transport: segment number and byte offset in it. Brokers: a stamp of the stream's life and the sequence number of
    the last message, so that a position of another life is noticed. Valid within one epoch.
    """

    segment: int
    offset: int

    def __str__(self) -> str:
        return f"{self.segment}:{self.offset}"


class Subscription(Protocol):
    """One reader. Not to be shared by threads, but ``close`` may come from any thread."""

    def next(self, timeout: float | None) -> list[tuple[Position, bytes]] | None:
        """Wait up to ``timeout`` seconds (None: for ever) for frames; None when none came.

        Each frame comes with the position behind it: where a later subscription goes on. The list is bounded in
        bytes, so memory is too; header frames that a transport repeats (one at the start of each segment) are
        delivered as they stand. Raises StreamCorrupt with the place; the frames before it were delivered by earlier
        calls, and calling again raises again. Raises StreamTrimmed, PositionBeyondEnd, TransportClosed. A lost connection is not
        raised: the subscription makes it anew and goes on where it was. Raises StreamReplaced where what comes back is another
        stream: subscribe without a position and wait for a snapshot cut.
        """

    def check_end(self) -> None:
        """Raises StreamCorrupt where what lies behind the last frame is no whole frame and never will be: nobody writes any more."""

    def close(self) -> None:
        """Wake a waiting ``next``, which raises TransportClosed. May be called twice."""


class Transport(Protocol):
    """See the module docstring. A process that only reads never calls ``claim``."""

    name: str

    @property
    def epoch(self) -> str:
        """The life of the storage. Raises StreamAbsent where no stream was ever claimed."""

    @property
    def end(self) -> Position:
        """The writer's end of the stream, before which everything was published."""

    def claim(self) -> str:
        """Become the one writer and recover what a crash left; return the epoch. Again, it only returns that, unless StreamLost was
        raised: then it claims a new stream, with another epoch, and ``begin`` and a snapshot cut have to follow.

        Of two writers at most one is served. Where it shows that an earlier one lives (``file``: a lock) this raises; a broker
        cannot know, so there the earlier is fenced out: its next calls raise WriterFenced, and nothing of them is readable.
        """

    def begin(self, header: bytes) -> Position:
        """Publish the header frame that starts a generation, acknowledged; it is repeated wherever a stream's part
        begins. Again within the generation: another one takes its place from here on.
        """

    def publish(self, frames: Sequence[bytes], *, sync: bool) -> Position:
        """Append frames in order and return the position behind them. With ``sync`` they, and all before them, are
        acknowledged (durable) when it returns. After an error nothing of the last frame is readable; what came before
        it is.

        Brokers: ``sync=False`` sends and returns; a bounded number of bytes waits for acknowledgement, and frames that an earlier
        call took are sent again when the connection is back. After an error it is not known which frames of the call that raised
        arrived. Call again with the same frames, and nothing is lost, doubled or put in another order; with others, and those that had
        not arrived are let go. Raises BrokerUnreachable, BrokerRefuses, StreamFull (all may be tried again), WriterFenced
        (for good), StreamLost (see ``claim``).
        """

    def subscribe(self, position: Position | None) -> Subscription:
        """Read from a position, or from the oldest frame that is still there. A stream that does not exist yet is
        waited for.
        """

    def newest_first(self) -> Iterator[list[bytes]]:
        """All frames there are, backwards, in pieces of neighbouring frames, each piece in order and beginning with a header.

        What is not whole at the very end is left out. For who goes on with a stream: nobody publishes meanwhile. A piece is
        bounded in bytes, as parts of the stream are. Raises StreamCorrupt. A stream that does not exist has no pieces.
        """

    def retain_from(self, position: Position) -> int:
        """Forget what lies before ``position``, where that is cheap; return the bytes freed. Nothing behind it is
        removed.
        """

    def close(self) -> None:
        """Free everything, end all subscriptions. May be called twice."""
