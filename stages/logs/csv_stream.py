"""Turns the bytes of a CSV file, as they are read, into tables of whole lines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping

import aiofiles
import pyarrow as pa

from pipeline.flow.stage import Lane
from stages.logs.csv_format import CsvFormat
from stages.logs.csv_lines import LineParser
from stages.logs.decompression import BadCompression, Decompressor, detect
from stages.logs.errors import CorruptLog, TruncatedLog, UnreadableLog
from stages.logs.files import LogFile
from stages.logs.tables import LogTable, Place

READ_BYTES = 1 << 20
BLOCK_BYTES = 1 << 20
"""Text is parsed once so much of it is there, which bounds what one visit to a lane takes."""
MAX_LINE_BYTES = 16 << 20


class CsvStream:
    """Feed it the file's bytes in order, then ``b""``. ``start`` is where to begin: earlier rows are not parsed.

    Runs on a lane. Raises the errors of ``stages.logs.errors``.
    """

    def __init__(self, file: LogFile, csv: CsvFormat, types: Mapping[str, pa.DataType] | None, start: Place) -> None:
        self._file, self._csv, self._start = file, csv, start
        self._parser = LineParser(file, csv, types)
        self._decompressor: Decompressor | None = None
        self._text = b""
        self._place = Place()
        self.done = False
        self.jump: int | None = None
        """Where to read next, when the file can be entered there."""

    def feed(self, raw: bytes) -> list[LogTable]:
        """Take the next bytes, ``b""`` at the end; return the tables that are complete."""
        self.jump = None
        text = self._decompress(raw)
        self._text += text
        self.done = not raw
        if self._parser.names is None and not self._take_header():
            return []
        if self._place.offset < self._start.offset and not self._go_to_start():
            return []
        if len(self._text) < BLOCK_BYTES and not self.done:
            return []
        return self._parse()

    def _decompress(self, raw: bytes) -> bytes:
        if self._decompressor is None:
            kind = detect(raw[:4]) if self._csv.compression == "auto" else self._csv.compression
            self._decompressor = Decompressor(kind)
        try:
            if raw:
                return self._decompressor.feed(raw)
            self._decompressor.finish()
            return b""
        except BadCompression as error:
            kind, line = self._decompressor.kind, self._place.line + self._text.count(b"\n")
            if error.truncated:
                raise TruncatedLog(self._file.path, kind, line) from error
            raise CorruptLog(self._file.path, line, f"the {kind} stream is damaged: {error}") from error

    def _take_header(self) -> bool:
        end = self._text.find(b"\n")
        if end < 0 and not self.done:
            self._check_length(len(self._text))
            return False
        line = self._text[:end] if end >= 0 else self._text
        if not line.strip(b"\r\n\xef\xbb\xbf"):
            if line or end >= 0:
                raise CorruptLog(self._file.path, 1, "the first line is empty, and it should name the columns")
            return False
        self._parser.take_header(line)
        self._advance(end + 1 if end >= 0 else len(self._text), 1)
        return True

    def _go_to_start(self) -> bool:
        """Drop text before the start; True once it was reached."""
        assert self._decompressor is not None
        ahead = self._start.offset - self._place.offset
        if ahead > len(self._text) and self._decompressor.kind == "none":
            self.jump, self._text, self._place = self._start.offset, b"", self._start
            return False
        if ahead > len(self._text):
            self._advance(len(self._text), 0)
            return False
        self._text, self._place = self._text[ahead:], self._start
        return True

    def _parse(self) -> list[LogTable]:
        end = len(self._text) if self.done else self._text.rfind(b"\n") + 1
        self._check_length(len(self._text) - end)
        if not end:
            return []
        lines, place = self._text[:end], self._place
        self._advance(end, lines.count(b"\n"))
        table = self._parser.parse(lines, place)
        return [] if table is None else [table]

    def _advance(self, num_bytes: int, num_lines: int) -> None:
        self._text = self._text[num_bytes:]
        self._place = Place(self._place.offset + num_bytes, self._place.line + num_lines)

    def _check_length(self, num_bytes: int) -> None:
        if num_bytes > MAX_LINE_BYTES:
            raise CorruptLog(self._file.path, self._place.line, f"a line is longer than {MAX_LINE_BYTES} bytes")


async def csv_tables(
    file: LogFile, csv: CsvFormat, types: Mapping[str, pa.DataType] | None, start: Place, lane: Lane
) -> AsyncGenerator[LogTable, None]:
    """Read a file in the background: bytes by aiofiles, everything else on ``lane``."""
    stream = CsvStream(file, csv, types, start)
    try:
        async with aiofiles.open(file.path, "rb") as handle:
            while not stream.done:
                for table in await lane.run(stream.feed, await handle.read(READ_BYTES)):
                    yield table
                if stream.jump is not None:
                    await handle.seek(stream.jump)
    except OSError as error:
        raise UnreadableLog(file.path, error.strerror or str(error)) from error


def csv_tables_here(file: LogFile, csv: CsvFormat) -> Iterator[LogTable]:
    """The same on the calling thread: all columns, as text."""
    stream = CsvStream(file, csv, None, Place())
    try:
        with open(file.path, "rb") as handle:
            while not stream.done:
                yield from stream.feed(handle.read(READ_BYTES))
    except OSError as error:
        raise UnreadableLog(file.path, error.strerror or str(error)) from error
