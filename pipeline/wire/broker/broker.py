"""What a broker has to offer a transport. One implementation for each kind of broker; all methods block.

``Link`` is the writer's connection, used by one thread at a time, ``Reader`` that of one subscription. Errors are those of
``wire.errors``: BrokerUnreachable where trying again may help, others where it does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pipeline.wire.broker.entries import Entry


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream as it stands in a broker."""

    epoch: str
    stamp: int
    """When its life began, in a unit of the broker's: another life has another stamp."""
    first: int
    """Number of the oldest entry that is there; ``last + 1`` where none is."""
    last: int
    """Number of the newest entry that ever was; 0 before the first."""


class Resynced(NamedTuple):
    """``stored``: the last entry of this writer's that is there. ``last``: the newest entry, which the next one follows."""

    stored: int
    last: int


class Link(Protocol):
    payload_bytes: int
    """How much one entry holds, known behind ``claim``."""

    @property
    def acknowledged(self) -> int:
        """Number of the newest entry of which it is known that it, and all before it, are durable."""

    def claim(self, *, lost: StreamState | None = None) -> StreamState:
        """Connect, make the stream where there is none, and claim it: no earlier writer can append to it any more.

        ``lost``: as this writer knew the stream before it lost entries. Where it is there still, it is made anew.

        Raises NotDurable, WriterFenced where a later generation has claimed it.
        """

    def begin_part(self) -> None:
        """The entries that follow are another part. Nothing waits for acknowledgement."""

    def send(self, entries: Sequence[Entry]) -> None:
        """Append entries behind the last one, without waiting. They are appended in order without a hole, or not at all."""

    def wait(self, number: int) -> None:
        """Until the entry ``number`` is acknowledged. Raises BrokerUnreachable, StreamFull, StreamLost, WriterFenced."""

    def resync(self) -> Resynced:
        """Behind an error: connect again if need be, and see to it that nothing which was sent before can still arrive."""

    def trim(self, number: int) -> int:
        """Forget the entries before ``number``; the bytes freed, as the broker counts them."""

    def abort(self) -> None:
        """Make a call that waits in another thread raise BrokerUnreachable soon. From any thread."""

    def close(self) -> None:
        """May be called twice."""


class Reader(Protocol):
    def open(self, after: int | None) -> StreamState | None:
        """Connect, and read behind entry ``after`` (None: from the oldest) from here on. None: there is no such stream."""

    def read(self, timeout: float) -> list[Entry]:
        """Wait up to ``timeout`` seconds for entries; none when nothing came. Bounded in bytes."""

    def wake(self) -> None:
        """Make a ``read`` in another thread return soon. From any thread."""

    def close(self) -> None:
        """May be called twice."""


class Broker(Protocol):
    kind: str
    place: str
    """Where the stream is, for people; without credentials."""

    def look(self) -> StreamState | None:
        """How the stream stands; None: there is none."""

    def link(self) -> Link:
        """Not connected yet."""

    def reader(self) -> Reader:
        """Not connected yet."""

    def parts(self) -> Iterator[list[Entry]]:
        """The entries of each part, the newest part first."""

    def remove(self) -> None:
        """Remove the stream, if there is one, whoever writes it."""

    def close(self) -> None:
        """May be called twice."""
