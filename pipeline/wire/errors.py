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


class StreamCorrupt(TransportError):
    """A stored record is not what was written. ``segment`` and ``offset`` name it; nothing behind it was delivered."""

    def __init__(self, path: str, segment: int, offset: int, what: str, *, unit: str = "offset") -> None:
        where = f"{path} (segment {segment}) at offset {offset}" if unit == "offset" else f"{path} at {unit} {offset}"
        super().__init__(f"{where}: {what}; what lies before it is sound")
        self.segment = segment
        self.offset = offset


class StreamTrimmed(TransportError):
    """The position asked for was removed by retention."""

    def __init__(self, place: str, segment: int, oldest: int, *, unit: str = "segment") -> None:
        super().__init__(
            f"{place}: {unit} {segment} was removed by retention, the oldest is {oldest}; "
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


class StreamReplaced(TransportError):
    """The stream is another one than this position, or this reader, began with: its storage was lost and made anew."""

    def __init__(self, place: str, was: str, now: str) -> None:
        super().__init__(
            f"{place}: the stream that was read here ({was}) is gone, and another one ({now}) is in its place; "
            "subscribe without a position and start from its snapshot cut"
        )


class StreamLost(TransportError):
    """What was published and acknowledged is not there any more: a broker came back without its data, or somebody removed the stream."""

    def __init__(self, place: str, what: str) -> None:
        super().__init__(
            f"{place}: {what}; claim the stream again and begin with a snapshot cut, and look why its data went "
            "(a broker without a data directory, a stream that was deleted)"
        )


class WriterFenced(TransportError):
    """Another writer has claimed the stream. This one publishes nothing any more."""

    def __init__(self, place: str, what: str) -> None:
        super().__init__(f"{place}: {what}; one trainer writes a stream: stop this one, or give it a stream of its own")


class BrokerUnreachable(TransportError):
    """The broker is not there, does not answer, or the connection was lost. May be tried again."""

    def __init__(self, place: str, what: str, hint: str) -> None:
        super().__init__(f"{place}: {what}; {hint}")


class BrokerRefuses(TransportError):
    """The broker is there and does not let this client do what it asked for."""

    def __init__(self, place: str, what: str, hint: str) -> None:
        super().__init__(f"{place}: {what}; {hint}")


class StreamFull(TransportError):
    """The broker has no room for a frame. Nothing is lost: it may be tried again when there is room."""

    def __init__(self, place: str, what: str, hint: str) -> None:
        super().__init__(f"{place}: the stream is full ({what}); {hint}")


class NotDurable(TransportError):
    """The broker would lose what it acknowledged."""

    def __init__(self, place: str, what: str, hint: str) -> None:
        super().__init__(
            f"{place}: {what}, so a crash of the broker would lose what it acknowledged; {hint}, "
            "or say durability: any in the transport's settings"
        )


class SignatureRefused(TransportError):
    """A frame that nobody who holds the key has signed, or that was changed since."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"stream position {where}: {what}; nothing of it was read")
