"""Where a replica reads: a transport, a directory of segments, or a run directory that holds one."""

from __future__ import annotations

import os

from pipeline.wire.errors import StreamAbsent
from pipeline.wire.file_transport import FileTransport, holds_stream
from pipeline.wire.transport import Transport

STREAM_DIR = "stream"


class StreamPlace:
    """Finds the transport when it is there: a replica may be started before its run."""

    def __init__(self, source: str | os.PathLike[str] | Transport) -> None:
        self._path = os.fspath(source) if isinstance(source, str | os.PathLike) else None
        self._transport: Transport | None = source if not isinstance(source, str | os.PathLike) else None
        self.name = self._path or str(getattr(source, "name", "stream"))

    def find(self) -> Transport | None:
        """The transport, or None while neither the path nor the folder ``stream`` in it holds a stream."""
        if self._transport is None and self._path is not None:
            for path in (self._path, os.path.join(self._path, STREAM_DIR)):
                if holds_stream(path):
                    self._transport = FileTransport(path)
                    break
        return self._transport

    def require(self) -> Transport:
        """The transport. Raises StreamAbsent."""
        transport = self.find()
        if transport is None:
            raise StreamAbsent(self.name)
        return transport

    def close(self) -> None:
        """Close a transport that was made here; one that was given belongs to the caller."""
        if self._path is not None and self._transport is not None:
            self._transport.close()
