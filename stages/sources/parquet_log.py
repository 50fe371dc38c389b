"""parquet: logs in Parquet files, read row group by row group."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import ClassVar

from pipeline.flow.stage import StageOptions
from stages.logs.files import LogFile
from stages.logs.parquet_stream import parquet_tables
from stages.logs.tables import LogTable, Place
from stages.sources.log_source import LogSource
from stages.sources.options import LogOptions


class ParquetSource(LogSource):
    """Reads Parquet logs: numbers, text or lists, many files in order."""

    Options: ClassVar[type[StageOptions]] = LogOptions

    def _tables(self, file: LogFile, start: Place) -> AsyncGenerator[LogTable, None]:
        return parquet_tables(file, list(self.options.types()), start, self._lane)
