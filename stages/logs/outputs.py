"""Writes tables to one file: Parquet, or CSV compressed with zstd."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

OutputFormat = Literal["parquet", "csv.zst"]
GROUP_ROWS = 1 << 17


class LogWriter:
    """One output file. ``schema`` is that of all its tables. A file of no rows is written too."""

    def __init__(self, path: Path, schema: pa.Schema, kind: OutputFormat) -> None:
        self.path, self._schema = path, schema
        self.rows = 0
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._stream: Any = None
        if kind == "parquet":
            self._writer: Any = pyarrow.parquet.ParquetWriter(path, schema, compression="zstd")
        else:
            self._stream = pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "zstd")
            options = pyarrow.csv.WriteOptions(include_header=True, quoting_style="needed")
            self._writer = pyarrow.csv.CSVWriter(self._stream, schema, write_options=options)

    def write(self, table: pa.Table) -> None:
        """Small tables are put together first."""
        self._pending.append(table)
        self._pending_rows += table.num_rows
        if self._pending_rows >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._pending_rows:
            table = pa.concat_tables(self._pending).combine_chunks()
            self._writer.write_table(table, GROUP_ROWS)
            self.rows += table.num_rows
        self._pending, self._pending_rows = [], 0

    def close(self) -> None:
        self._flush()
        self._writer.close()
        if self._stream is not None:
            self._stream.close()
