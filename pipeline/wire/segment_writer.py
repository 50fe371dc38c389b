"""Appends records to the segments of one generation, each of which begins with its header frame.

Rules.

1. A segment is durable, whole, before the next one is created.
2. A record that readers may have seen is never taken back. One that could not be written whole was never there.
3. After a failed sync nobody knows what is durable: the file refuses everything from then on, and so does the writer.
"""

from __future__ import annotations

from pipeline.files import WritableFile
from pipeline.wire.errors import TransportError
from pipeline.wire.records import record_head
from pipeline.wire.segments import SegmentDirectory
from pipeline.wire.transport import Position


class SegmentWriter:
    """Not thread-safe. Owns one open file."""

    def __init__(
        self, directory: SegmentDirectory, first: int, header: bytes, *, segment_bytes: int, max_payload_bytes: int
    ) -> None:
        """Create segment ``first``, holding the header alone, durable."""
        self._directory = directory
        self._header = header
        self._segment_bytes = segment_bytes
        self._max_payload_bytes = max_payload_bytes
        self._number = first - 1
        self._file: WritableFile | None = None
        self._durable = self._header_end = 0
        try:
            self._rotate()
            self.sync()
        except BaseException:
            self.close()
            raise

    @property
    def end(self) -> Position:
        return Position(self._number, 0 if self._file is None else self._file.size)

    def append(self, frame: bytes) -> None:
        """Write one record, in a new segment if this one is full. Raises what the files room raises; see rule 2."""
        if len(frame) > self._max_payload_bytes:
            raise TransportError(f"a frame of {len(frame)} bytes; readers accept {self._max_payload_bytes}")
        assert self._file is not None, "the writer was closed"
        if self._file.size > self._header_end and self._file.size + len(frame) > self._segment_bytes:
            self._rotate()
        if not self._header_end:
            self._write_header()
        self._write(frame)

    def sync(self) -> None:
        """Make all that was appended durable."""
        if self._file is not None and self._durable < self._file.size:
            self._file.sync()
            self._durable = self._file.size

    def close(self) -> None:
        """Sync and close. May be called twice."""
        try:
            self.sync()
        finally:
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def _rotate(self) -> None:
        self.sync()
        path = self._directory.segment_path(self._number + 1)
        file = self._directory.files.create(path)
        if self._file is not None:
            self._file.close()
        self._file, self._number, self._durable, self._header_end = file, self._number + 1, 0, 0
        self._write_header()

    def _write_header(self) -> None:
        self._directory.files.sync_dir(self._directory.path)
        self._write(self._header)
        assert self._file is not None
        self._header_end = self._file.size

    def _write(self, frame: bytes) -> None:
        assert self._file is not None
        self._file.write(record_head(frame, self._file.size, self._durable), frame)
