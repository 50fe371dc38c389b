"""Sorts a log by time and splits it into a training and a test part, in bounded memory.

The split is by rows in time order: the last ``holdout`` of them are the test part. Rows of equal time keep their order.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.logs.csv_format import CsvFormat
from stages.logs.csv_stream import csv_tables_here
from stages.logs.errors import BadLine, MissingColumns
from stages.logs.external_sort import KEY, ROW, ExternalSorter
from stages.logs.files import LogFile
from stages.logs.outputs import LogWriter, OutputFormat
from stages.logs.parquet_stream import parquet_tables_here
from stages.logs.tables import LogTable, Place

FORMAT_VERSION = 1
HEAD_BYTES = 1 << 16
KEY_TYPES = {"integer": pa.int64(), "number": pa.float64(), "text": pa.string()}


@dataclass(frozen=True, slots=True)
class Log:
    """Files, how they are written (``csv`` None: Parquet), and the column that they are sorted by."""

    files: Sequence[LogFile]
    csv: CsvFormat | None
    sort: str
    sort_as: str


@dataclass(frozen=True, slots=True)
class Prepared:
    train: Path
    test: Path
    train_rows: int
    test_rows: int


def _tables(log: Log) -> Iterator[LogTable]:
    for file in log.files:
        yield from parquet_tables_here(file, None, Place()) if log.csv is None else csv_tables_here(file, log.csv)


def _keyed(table: LogTable, log: Log, first_row: int) -> pa.Table:
    """With the two columns that the sorter needs. Raises BadLine, MissingColumns."""
    if table.skipped:
        raise BadLine(table.file.path, table.unit, table.skipped[0].line, table.skipped[0].what)
    if log.sort not in table.table.column_names:
        raise MissingColumns(table.file.path, [log.sort], table.table.column_names)
    keys = table.table[log.sort]
    is_text = pa.types.is_string(keys.type) or pa.types.is_large_string(keys.type)
    try:
        keys = keys.cast(KEY_TYPES[log.sort_as]) if is_text else keys
    except pa.ArrowInvalid as error:
        line, value = _first_bad(keys, table, KEY_TYPES[log.sort_as])
        raise BadLine(
            table.file.path, table.unit, line, f"{value!r} in column {log.sort!r} is no {log.sort_as}"
        ) from error
    if keys.null_count:
        at = int(pc.index(keys.is_null(), True).as_py())
        raise BadLine(
            table.file.path, table.unit, int(table.lines_n[at]), f"column {log.sort!r} has no value to sort by"
        )
    rows = pa.array(np.arange(first_row, first_row + table.table.num_rows, dtype=np.int64))
    return table.table.append_column(KEY, keys).append_column(ROW, rows)


def _first_bad(keys: pa.ChunkedArray, table: LogTable, dtype: pa.DataType) -> tuple[int, str]:
    """The first value that cannot be cast, by halving."""
    start, stop = 0, len(keys)
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            keys.slice(start, middle - start).cast(dtype)
            start = middle
        except pa.ArrowInvalid:
            stop = middle
    return int(table.lines_n[start]), str(keys[start].as_py())


def prepare(log: Log, out: Path, holdout: float, memory_bytes: int, kind: OutputFormat = "parquet") -> Prepared:
    """Write ``out``/train and ``out``/test. Blocks; temporary files go below ``out``. Raises LogError."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="runs-", dir=out) as runs:
        sorter, rows, schema = ExternalSorter(Path(runs), memory_bytes), 0, None
        for table in _tables(log):
            keyed = _keyed(table, log, rows)
            schema = schema or keyed.schema
            sorter.add(keyed.cast(schema) if keyed.schema != schema else keyed)
            rows += keyed.num_rows
        plain = schema if schema is None else pa.schema([f for f in schema if f.name not in (KEY, ROW)])
        return _write_parts(sorter, plain or pa.schema([]), out, rows - round(rows * holdout), kind)


def _write_parts(sorter: ExternalSorter, schema: pa.Schema, out: Path, num_train: int, kind: OutputFormat) -> Prepared:
    train, test = (LogWriter(out / f"{part}.{kind}", schema, kind) for part in ("train", "test"))
    row = 0
    for table in sorter.sorted_tables():
        plain = table.select(schema.names)
        left = min(max(num_train - row, 0), plain.num_rows)
        train.write(plain.slice(0, left))
        test.write(plain.slice(left))
        row += plain.num_rows
    train.close()
    test.close()
    return Prepared(train.path, test.path, train.rows, test.rows)
