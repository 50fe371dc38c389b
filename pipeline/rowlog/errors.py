"""What can go wrong with checkpoints and exports. Every error says which file, where in it, and what would have
worked."""

from __future__ import annotations

import os
from collections.abc import Iterable


class RowLogError(Exception):
    """Base of all errors of this room. ``exit_code`` is what the command line returns."""

    exit_code = 1


class NoCheckpoint(RowLogError):
    """The directory holds no finished checkpoint."""

    def __init__(self, directory: str) -> None:
        super().__init__(f"{directory} holds no checkpoint: a run writes one at a clean end and when it is interrupted")
        self.directory = directory


class CheckpointCorrupt(RowLogError):
    """Bytes that are not those that were written: torn, flipped or replaced."""

    def __init__(self, path: str, offset: int, what: str) -> None:
        super().__init__(f"{path} at offset {offset}: {what}; restore the file, or use another checkpoint")
        self.path = path
        self.offset = offset


class OtherFormat(RowLogError):
    """A checkpoint written by a build with another format."""

    def __init__(self, path: str, found: object, known: int) -> None:
        super().__init__(
            f"{path} has format version {found}, this build reads {known}: read it with the build that wrote it"
        )
        self.found = found


class UnknownTable(RowLogError, KeyError):
    """No table of that name in the checkpoint."""

    exit_code = 2

    def __init__(self, path: str, name: str, known: Iterable[str]) -> None:
        RowLogError.__init__(self, f"{path} has no table {name!r}; it has {sorted(known)}")
        self.name = name

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownBlob(RowLogError, KeyError):
    """No blob of that name in the checkpoint."""

    def __init__(self, path: str, name: str, known: Iterable[str]) -> None:
        RowLogError.__init__(self, f"{path} has no blob {name!r}; it has {sorted(known)}")
        self.name = name

    def __str__(self) -> str:
        return str(self.args[0])


class ExportFailed(RowLogError):
    """What was asked for cannot be written to that place."""


class ImportFailed(RowLogError):
    """A file's rows cannot be taken. Nothing was changed."""

    exit_code = 2

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"cannot import {path}: {why}")
        self.path = path


class ReadFailed(RowLogError, OSError):
    """One request of a batch of random reads failed, or its file ended before it did. The whole batch is void.

    Says which request by its index ``n``, file descriptor and offset: whoever opened the file knows its path.
    """

    def __init__(self, n: int, fd: int, offset: int, wanted: int, got: int, code: int) -> None:
        why = f"{os.strerror(code)} (errno {code})" if code else "the file ends there"
        OSError.__init__(
            self,
            code,
            f"request {n}: {got} of {wanted} bytes at offset {offset} of file descriptor {fd} were read: {why}",
        )
        self.n = n
        self.fd = fd
        self.offset = offset
        self.wanted = wanted
        self.got = got
        """Bytes of the request that came before it failed."""
        self.errno = code
        """0 where the file ended."""


class ReadsClosed(RowLogError):
    """A read was asked of a ``RandomReads`` after its ``close`` began."""

    def __init__(self) -> None:
        super().__init__("these random reads were closed: end the readers first, or open another RandomReads")


class BadPlace(RowLogError, ValueError):
    """A place that no row can have."""

    def __init__(self, position: int, place: int) -> None:
        super().__init__(f"place {place} at position {position}: places are 0 or more")


class IndexMemory(RowLogError, MemoryError):
    """The system gives an index no more memory."""

    def __init__(self, num_bytes: int) -> None:
        super().__init__(f"no memory for another {num_bytes} bytes of an index: free some, or raise the limit")
