"""csv: text logs, one sample per line."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import ClassVar

from pipeline.flow.stage import StageOptions
from stages.logs.csv_format import CsvFormat
from stages.logs.csv_stream import csv_tables
from stages.logs.files import LogFile
from stages.logs.tables import LogTable, Place
from stages.sources.log_source import LogSource
from stages.sources.options import LogOptions


class CsvOptions(LogOptions, CsvFormat):
    """A text log, plain or compressed."""


class CsvSource(LogSource):
    """Reads text logs: any separator, gzip or zstd, header or not, many files in order."""

    Options: ClassVar[type[StageOptions]] = CsvOptions

    def _tables(self, file: LogFile, start: Place) -> AsyncGenerator[LogTable, None]:
        return csv_tables(file, self.options, self.options.types(), start, self._lane)

    def _csv_format(self) -> CsvFormat:
        return CsvFormat(**{name: getattr(self.options, name) for name in CsvFormat.model_fields})
