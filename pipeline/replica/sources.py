"""Where a replica reads: a transport or those of all shards, a directory of segments or of shards, or a run directory that holds one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pipeline.wire.errors import StreamAbsent
from pipeline.wire.file_shards import find_shards
from pipeline.wire.transport import Transport

STREAM_DIR = "stream"


class StreamPlace:
    """Finds the transports of all shards when they are there: a replica may be started before its run."""

    def __init__(self, source: str | os.PathLike[str] | Transport | Sequence[Transport]) -> None:
        """Raises ValueError for an empty list."""
        self._path: str | None = None
        self._transports: tuple[Transport, ...] | None = None
        if isinstance(source, str | os.PathLike):
            self._path = os.fspath(source)
        else:
            self._transports = _listed(source)
        if self._transports == ():
            raise ValueError("a replica of no transport: give that of the stream, or those of all its shards")
        self.name = self._path or str(getattr(self._transports[0] if self._transports else None, "name", "stream"))

    def find(self) -> Sequence[Transport] | None:
        """In the order of the shards; None while neither the path nor the folder ``stream`` in it holds a stream, all shards of it."""
        if self._transports is None and self._path is not None:
            for path in (self._path, os.path.join(self._path, STREAM_DIR)):
                found = find_shards(path)
                if found is not None:
                    self._transports = tuple(found)
                    break
        return self._transports

    def require(self) -> Sequence[Transport]:
        """The transports. Raises StreamAbsent."""
        transports = self.find()
        if transports is None:
            raise StreamAbsent(self.name)
        return transports

    def close(self) -> None:
        """Close transports that were made here; those that were given belong to the caller."""
        if self._path is not None:
            for transport in self._transports or ():
                transport.close()


def _listed(source: Any) -> tuple[Transport, ...]:
    return tuple(source) if isinstance(source, Sequence) else (source,)
