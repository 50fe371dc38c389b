"""Parses whole lines of a CSV file into an Arrow table. Runs on a lane; pyarrow does the work.

Two ways. With types, the quick one: numbers are converted while parsing. When that fails, everything is parsed as
text, and whoever converts the columns finds the bad values row by row (``stages.sources.convert``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv

from stages.logs.csv_format import CsvFormat
from stages.logs.errors import CorruptLog, MissingColumns, RepeatedColumn
from stages.logs.files import LogFile
from stages.logs.tables import Int64s, LogTable, Place, SkippedLine

STAND_INS = bytes([0x1F, 0x1E, 0x1D, 0x1C, *range(1, 9), *range(14, 28)])
"""Bytes that may take the place of a long separator, whichever the text does not hold."""


class LineParser:
    """Parses the lines of one file. ``types`` names the wanted columns and their types; None wants all, as text."""

    def __init__(self, file: LogFile, csv: CsvFormat, types: Mapping[str, pa.DataType] | None) -> None:
        self._file, self._csv, self._types = file, csv, types
        self.names: list[str] | None = None
        if csv.columns is not None:
            self._set_names(list(csv.columns))

    def take_header(self, line: bytes) -> None:
        """Learn the columns' names. Raises MissingColumns, RepeatedColumn, CorruptLog."""
        data, delimiter = self._one_byte_separator(line.removeprefix(b"\xef\xbb\xbf"), 1)
        parse = pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=self._csv.quote_character or False)
        try:
            names = pyarrow.csv.read_csv(pa.BufferReader(data.rstrip(b"\r") + b"\n"), parse_options=parse).column_names
        except pa.ArrowInvalid as error:
            raise CorruptLog(self._file.path, 1, f"this names no columns: {error}") from error
        self._set_names(names)

    def _set_names(self, names: list[str]) -> None:
        wanted = list(self._types) if self._types is not None else names
        missing = [name for name in wanted if name not in names]
        if missing:
            raise MissingColumns(self._file.path, missing, names)
        for name in wanted:
            if names.count(name) > 1:
                raise RepeatedColumn(self._file.path, name)
        self.names = names

    def parse(self, data: bytes, place: Place) -> LogTable | None:
        """Parse whole lines that begin at ``place``; None when all of them are empty. Raises CorruptLog."""
        if not data.strip(b"\r\n") and len(self.names or ()) > 1:
            return None
        text, delimiter = self._one_byte_separator(data, place.line)
        rejects: list[pyarrow.csv.InvalidRow] = []
        try:
            table = self._read(text, delimiter, self._types, rejects)
        except pa.ArrowInvalid:
            rejects.clear()
            table = self._read_as_text(text, delimiter, rejects, place)
        numbers_n = self._line_numbers(data, table.num_rows + len(rejects), place)
        return self._assemble(table, place, numbers_n, rejects)

    def _read_as_text(
        self, text: bytes, delimiter: str, rejects: list[pyarrow.csv.InvalidRow], place: Place
    ) -> pa.Table:
        assert self.names is not None
        types = {name: pa.string() for name in self._types or self.names}
        try:
            return self._read(text, delimiter, types, rejects)
        except pa.ArrowInvalid as error:
            raise CorruptLog(self._file.path, place.line, str(error)) from error

    def _read(
        self,
        text: bytes,
        delimiter: str,
        types: Mapping[str, pa.DataType] | None,
        rejects: list[pyarrow.csv.InvalidRow],
    ) -> pa.Table:
        assert self.names is not None

        def reject(row: pyarrow.csv.InvalidRow) -> str:
            rejects.append(row)
            return "skip"

        types = types if types is not None else {name: pa.string() for name in self.names}
        return pyarrow.csv.read_csv(
            pa.BufferReader(text),
            pyarrow.csv.ReadOptions(column_names=self.names, use_threads=False, block_size=max(len(text), 1)),
            pyarrow.csv.ParseOptions(
                delimiter=delimiter,
                quote_char=self._csv.quote_character or False,
                ignore_empty_lines=len(self.names) > 1,
                invalid_row_handler=reject,
            ),
            pyarrow.csv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                null_values=list(self._csv.missing),
                strings_can_be_null=True,
                check_utf8=False,
            ),
        )

    def _one_byte_separator(self, data: bytes, line: int) -> tuple[bytes, str]:
        """pyarrow knows separators of one byte only: put an unused byte in the place of a longer one."""
        if len(self._csv.separator) == 1 and self._csv.separator.isascii():
            return data, self._csv.separator
        for byte in STAND_INS:
            if byte not in data:
                return data.replace(self._csv.separator.encode(), bytes([byte])), chr(byte)
        raise CorruptLog(self._file.path, line, "this is no text: it holds every control character")

    def _line_numbers(self, data: bytes, num_rows: int, place: Place) -> Int64s:
        """The line of each parsed row, rejected ones included. Empty lines are no rows."""
        num_lines = data.count(b"\n") + (not data.endswith(b"\n"))
        if num_rows == num_lines:
            return np.arange(place.line, place.line + num_rows, dtype=np.int64)
        bytes_n = np.frombuffer(data, dtype=np.uint8)
        ends = np.append(np.flatnonzero(bytes_n == 10), [] if data.endswith(b"\n") else [len(data)]).astype(np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
        lengths = ends - starts - ((ends > starts) & (bytes_n[np.maximum(ends - 1, 0)] == 13))
        filled = np.flatnonzero(lengths > 0)
        if len(filled) != num_rows:
            raise CorruptLog(
                self._file.path,
                place.line,
                "a quoted field holds a line break, or a quote is not closed (`quote: null` if quotes are text)",
            )
        return filled + place.line

    def _assemble(
        self, table: pa.Table, place: Place, numbers_n: Int64s, rejects: Sequence[pyarrow.csv.InvalidRow]
    ) -> LogTable:
        if not rejects:
            return LogTable(self._file, table, place, numbers_n, "line")
        rejected_n = np.array([row.number - 1 for row in rejects], dtype=np.int64)
        skipped = tuple(
            SkippedLine(
                before=int(at) - i,
                line=int(numbers_n[at]),
                what=f"{row.actual_columns} columns instead of {row.expected_columns}: {row.text[:200]!r}",
            )
            for i, (at, row) in enumerate(zip(rejected_n, rejects, strict=True))
        )
        return LogTable(self._file, table, place, np.delete(numbers_n, rejected_n), "line", skipped)
