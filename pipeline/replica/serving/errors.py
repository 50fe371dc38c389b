"""What can go wrong in the service and in its client. Every error says where, and what would have worked."""

from __future__ import annotations

import os

from pipeline.replica.errors import ReplicaError


class ServingError(ReplicaError):
    """Base of all errors of the service."""


class BadMessage(ServingError):
    """Bytes that are no message of the protocol."""


class TooLarge(ServingError):
    """A body beyond a bound; nothing was allocated for it."""


class NoRoom(ServingError):
    """Other requests hold the room that this one needs, and did not give it back in time."""

    def __init__(self, nbytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"no room for {nbytes} bytes: all answers on their way may take {limit_bytes}; try again, or raise inflight_bytes"
        )


class SocketTaken(ServingError):
    exit_code = 2

    def __init__(self, path: str) -> None:
        super().__init__(f"{path}: another server answers here; stop it, or give another --socket")


class NoSocketPath(ServingError):
    exit_code = 2

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}; give a --socket in a directory that exists, where no other file stands")


class BadAddress(ServingError):
    """An address to listen on that cannot be, or must be asked for."""

    exit_code = 2


class Unreachable(ServingError, ConnectionError):
    """Nobody answers at the socket, or the connection broke, or an answer took too long: the client may be used again, and
    connects anew. A pinned view is gone.
    """

    def __init__(self, path: str | os.PathLike[str], why: str) -> None:
        super().__init__(f"{os.fspath(path)}: {why}; is `replica --serve` running there?")


class RequestRefused(ServingError):
    """The server's answer is an error. ``code`` is one of ``protocol.Code``."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ServedTableUnknown(RequestRefused, KeyError):
    __str__ = RequestRefused.__str__


class ServedViewExpired(RequestRefused):
    """The pinned view ended: open another."""


class ServiceBusy(RequestRefused):
    """Try again."""
