"""Appends records to the segments of one generation, each of which begins with its header frame.

Rules.

1. A segment is durable, whole, before the next one is created.
2. A record that readers may have seen is never taken back. Only a record that could not be written whole is cut off.
3. After a failed sync nobody knows what is durable: the writer refuses to go on.
"""

from __future__ import annotations

import contextlib

from pipeline.files import WritableFile
from pipeline.wire.errors import TransportError
from pipeline.wire.records import MAX_PAYLOAD_BYTES, pack_record
from pipeline.wire.segments import SegmentDirectory
from pipeline.wire.transport import Position


class SegmentWriter:
    """Not thread-safe. Owns one open file."""

    def __init__(self, directory: SegmentDirectory, first: int, header: bytes, segment_bytes: int) -> None:
        """Create segment ``first``, holding the header alone, durable."""
        self._directory = directory
        self._header = header
        self._segment_bytes = segment_bytes
        self._durable = 0
        self._broken: BaseException | None = None
        self._file: WritableFile | None = None
        self._number, self._end = first - 1, 0
        self._rotate()
        self.sync()

    @property
    def end(self) -> Position:
        return Position(self._number, self._end)

    def append(self, frame: bytes) -> None:
        """Write one record, in a new segment if this one is full. Raises what the files room raises; see rule 2."""
        if self._broken is not None:
            raise TransportError(f"{self._path}: an earlier sync failed ({self._broken}); reopen it") from self._broken
        if len(frame) > MAX_PAYLOAD_BYTES:
            raise TransportError(f"a frame of {len(frame)} bytes; the limit is {MAX_PAYLOAD_BYTES}")
        full = self._end + len(frame) > self._segment_bytes and self._end > self._first_bytes
        if self._file is None or full:
            self._rotate()
        self._write(frame)

    def sync(self) -> None:
        """Make all that was appended durable."""
        if self._broken is None and self._file is not None and self._durable < self._end:
            try:
                self._file.sync()
            except BaseException as error:
                self._broken = error
                raise
            self._durable = self._end

    def close(self) -> None:
        """Sync and close. May be called twice."""
        try:
            self.sync()
        finally:
            if self._file is not None:
                self._file.close()
                self._file = None

    @property
    def _path(self) -> str:
        return self._directory.segment_path(self._number)

    def _rotate(self) -> None:
        self.close()
        file = self._directory.files.create(self._directory.segment_path(self._number + 1))
        self._file, self._number, self._end, self._durable, self._first_bytes = file, self._number + 1, 0, 0, 0
        try:
            self._directory.files.sync_dir(self._directory.path)
        except BaseException:
            self._abandon_segment()
            raise
        self._write(self._header)
        self._first_bytes = self._end

    def _write(self, frame: bytes) -> None:
        assert self._file is not None
        record = pack_record(frame, self._end, self._durable)
        try:
            self._file.write(record)
        except BaseException:
            self._abandon_segment()
            raise
        self._end += len(record)

    def _abandon_segment(self) -> None:
        """Cut off what was written of a record; whoever tries again gets another segment.

        Errors here are second to the one that led here: a reader reports the cut record, ``append`` the failed sync.
        """
        with contextlib.suppress(OSError):
            self._directory.files.truncate(self._path, self._end)
        with contextlib.suppress(OSError):
            self.close()
