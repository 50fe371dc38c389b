"""Sorts a log by time and splits it into a training and a test part, in bounded memory, and keeps the outcome for the
next run.

The cache is keyed by the input files (path, size, modification time, first bytes) and by all options, and a part
appears in it whole or not at all. The split is by rows in time order: the last ``holdout`` of them are the test part.
Rows of equal time keep their order.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from pipeline.flow.stage import StageOptions
from stages.logs.csv_format import CsvFormat
from stages.logs.csv_stream import csv_tables_here
from stages.logs.errors import BadLine, MissingColumns
from stages.logs.external_sort import KEY, ROW, ExternalSorter
from stages.logs.files import LogFile, find_files
from stages.logs.outputs import LogWriter, OutputFormat
from stages.logs.parquet_stream import parquet_tables_here
from stages.logs.tables import LogTable, Place

FORMAT_VERSION = 1
HEAD_BYTES = 1 << 16
KEY_TYPES = {"integer": pa.int64(), "number": pa.float64(), "text": pa.string()}


class PrepareOptions(StageOptions):
    """Sort by time and split, once, into a cache."""

    sort: str | None = Field(None, description="the column of times; null: the column `time` of the source")
    sort_as: Literal["integer", "number", "text"] = Field("integer", description="how the times of a text log compare")
    holdout: float = Field(0.2, ge=0, lt=1, description="share of the rows, the last in time, that is the test part")
    part: Literal["train", "test"] = Field("train", description="which part to read")
    cache_dir: str | None = Field(None, description="null: $XDG_CACHE_HOME/rowstream, or ~/.cache/rowstream")
    memory_bytes: int = Field(256 << 20, ge=1 << 20, description="memory for sorting; the rest waits on disk")


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


def cache_key(log: Log, holdout: float) -> str:
    """Names the outcome: it changes when an input file or an option does."""
    digest = hashlib.sha256()
    csv = None if log.csv is None else log.csv.model_dump(mode="json")
    digest.update(json.dumps([FORMAT_VERSION, csv, log.sort, log.sort_as, holdout], sort_keys=True).encode())
    for file in log.files:
        found = os.stat(file.path)
        with open(file.path, "rb") as handle:
            digest.update(repr((os.path.abspath(file.path), found.st_size, found.st_mtime_ns)).encode())
            digest.update(handle.read(HEAD_BYTES))
    return digest.hexdigest()[:24]


def _cache_dir(options: PrepareOptions) -> Path:
    if options.cache_dir is not None:
        return Path(options.cache_dir)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "rowstream"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def prepared_part(
    options: PrepareOptions,
    sort: str,
    patterns: Sequence[str],
    csv: CsvFormat | None,
    say: Callable[[str], None] = _say,
) -> LogFile:
    """The wanted part, from the cache or made now. Blocks. The file's name holds the cache key. Raises LogError."""
    log = Log(find_files(patterns), csv, sort, options.sort_as)
    key, cache = cache_key(log, options.holdout), _cache_dir(options)
    final = cache / key
    if not final.exists():
        say(f"preparing {len(log.files)} files, sorted by {sort!r}, in {final} (once)")
        cache.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=cache))
        try:
            made = prepare(log, work, options.holdout, options.memory_bytes)
            say(f"prepared {made.train_rows} training rows and {made.test_rows} test rows")
            _publish(work, final)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return LogFile(f"{key}/{options.part}", str(final / f"{options.part}.parquet"))


def _publish(work: Path, final: Path) -> None:
    """Rename, durably; when somebody else was quicker, theirs is the same."""
    for path in (*work.iterdir(), work):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    try:
        os.rename(work, final)
    except OSError:
        if not final.exists():
            raise
