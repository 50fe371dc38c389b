"""What can go wrong on the wire. Every error says where, and what would have worked."""

from __future__ import annotations


class WireError(Exception):
    """Base of all errors of this room."""


class FrameError(WireError):
    """Bytes that are not a frame that this build can read. ``where`` names the part of the frame."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"frame {where}: {what}")
        self.what = what
        self.where = where


class TransportError(WireError):
    """Base of the errors of transports."""


class StreamAbsent(TransportError):
    """There is no stream at that place (yet)."""

    def __init__(self, place: str) -> None:
        super().__init__(f"{place}: no stream here; a run writes one when stages.stream.enabled is true")


class TransportClosed(TransportError):
    """The transport or the subscription was closed."""


class StreamLost(TransportError):
    """The storage lives another life than the one that this writer claimed: what it held is gone. ``claim`` tells its new epoch, and
    ``begin`` goes on there.
    """

    def __init__(self, place: str, was: str, found: str) -> None:
        super().__init__(
            f"{place}: its epoch is {found}, the one claimed was {was}: what was published there is gone; a header and a snapshot cut "
            "let replicas go on"
        )
        self.was = was
        self.found = found


class WriterFenced(TransportError):
    """A writer of a newer generation has claimed the stream: this one may never publish again."""

    def __init__(self, place: str, generation: int, newer: int) -> None:
        super().__init__(
            f"{place}: generation {newer} of this run has claimed the stream, so this one ({generation}) may not publish any more. "
            "Two trainers write one stream: stop this one, or give the other a stream of its own"
        )
        self.generation = generation
        self.newer = newer


class StreamCorrupt(TransportError):
    """A stored record is not what was written. ``segment`` and ``offset`` name it; nothing behind it was delivered."""

    def __init__(self, path: str, segment: int, offset: int, what: str) -> None:
        super().__init__(f"{path} (segment {segment}) at offset {offset}: {what}; what lies before it is sound")
        self.segment = segment
        self.offset = offset


class StreamTrimmed(TransportError):
    """The position asked for was removed by retention."""

    def __init__(self, place: str, segment: int, oldest: int) -> None:
        super().__init__(
            f"{place}: segment {segment} was removed by retention, the oldest is {oldest}; "
            "subscribe without a position and start from the snapshot cut"
        )
        self.segment = segment
        self.oldest = oldest


class PositionBeyondEnd(TransportError):
    """The position asked for lies behind the end of the stream: it belongs to another stream, or the end was lost."""

    def __init__(self, place: str, position: str, end: str) -> None:
        super().__init__(
            f"{place}: position {position} lies behind the end of the stream ({end}); it belongs to another stream, "
            "or the storage lost data. Subscribe without a position and start from a snapshot cut"
        )
