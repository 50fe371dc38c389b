"""Reads a Parquet file piece by piece, row group after row group. Runs on a lane."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from pipeline.flow.stage import Lane
from stages.logs.errors import MissingColumns, UnreadableLog
from stages.logs.files import LogFile
from stages.logs.tables import LogTable, Place

PIECE_ROWS = 1 << 16


def _pieces(file: LogFile, columns: Sequence[str] | None, start: Place) -> Iterator[LogTable]:
    with pyarrow.parquet.ParquetFile(file.path) as parquet:
        names = parquet.schema_arrow.names
        missing = [name for name in columns or () if name not in names]
        if missing:
            raise MissingColumns(file.path, missing, names)
        first = 1
        for group in range(parquet.num_row_groups):
            place, num_rows = Place(group, first), parquet.metadata.row_group(group).num_rows
            if group >= start.offset:
                yield from _group(file, parquet, columns, place)
            first += num_rows


def _group(
    file: LogFile, parquet: pyarrow.parquet.ParquetFile, columns: Sequence[str] | None, place: Place
) -> Iterator[LogTable]:
    line = place.line
    chosen = None if columns is None else list(columns)
    for batch in parquet.iter_batches(PIECE_ROWS, row_groups=[place.offset], columns=chosen, use_threads=False):
        lines_n = np.arange(line, line + batch.num_rows, dtype=np.int64)
        yield LogTable(file, pa.Table.from_batches([batch]), place, lines_n, "row")
        line += batch.num_rows


def parquet_tables_here(file: LogFile, columns: Sequence[str] | None, start: Place) -> Iterator[LogTable]:
    """All pieces from the row group ``start.offset`` on. Raises MissingColumns, UnreadableLog."""
    try:
        yield from _pieces(file, columns, start)
    except OSError as error:
        raise UnreadableLog(file.path, error.strerror or str(error)) from error
    except pa.ArrowException as error:
        raise UnreadableLog(file.path, f"it is damaged or no Parquet file: {error}") from error


async def parquet_tables(
    file: LogFile, columns: Sequence[str] | None, start: Place, lane: Lane
) -> AsyncGenerator[LogTable, None]:
    """The same, each piece read on ``lane``."""
    pieces = parquet_tables_here(file, columns, start)
    while (table := await lane.run(next, pieces, None)) is not None:
        yield table
