"""Checks every byte of a checkpoint that means something: headers, footers, each record, blobs. In bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np

from pipeline.files import Files
from pipeline.rowlog.checkpoint.reader import CheckpointReader
from pipeline.rowlog.errors import RowLogError
from pipeline.rowlog.log.records import ROW_BITS, Records, Rows
from pipeline.rowlog.log.segment_format import (
    SealedSegment,
    check_is_of,
    check_unpacked,
    number_of,
    read_footer,
    read_records,
)
from pipeline.rows.spec import TableSpec

PIECE_BYTES: Final = 4 << 20


@dataclass(slots=True)
class Checked:
    """What was read so far, and what was found wrong: a line each. A segment that several checkpoints name is read once."""

    segments: int = 0
    records: int = 0
    nbytes: int = 0
    problems: list[str] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)


def check_checkpoint(reader: CheckpointReader, checked: Checked) -> Iterator[None]:
    """Go through a checkpoint; yields after each file. Problems are noted in ``checked`` and do not end it."""
    for spec in reader.tables:
        for sealed in reader.saved.tables[spec.name].segments:
            if sealed.path not in checked.paths:
                checked.paths.add(sealed.path)
                _note(checked, partial(_check_segment, reader.files, spec, sealed))
                checked.segments += 1
                checked.records += sealed.num_rows
                checked.nbytes += sealed.size
                yield
    for name, entry in reader.manifest.blobs.items():
        _note(checked, partial(reader.blob, name))
        checked.nbytes += entry.size
        yield


def _note(checked: Checked, check: Callable[[], object]) -> None:
    try:
        check()
    except (RowLogError, OSError) as error:
        checked.problems.append(str(error))


def _check_segment(files: Files, spec: TableSpec, sealed: SealedSegment) -> None:
    """Raises LogCorrupt, OtherFormat, OSError."""
    records, number = Records.of(spec), number_of(sealed.path)
    check_is_of(files, spec, records, sealed.path)
    ids_n, versions_n = read_footer(files, sealed)
    per_piece = max(1, PIECE_BYTES // records.block) * records.per_block
    for first in range(0, sealed.num_rows, per_piece):
        rows_n = np.arange(first, min(first + per_piece, sealed.num_rows), dtype=np.int64)
        data, start = read_records(files, records, sealed.path, first, len(rows_n))
        rows = Rows(np.empty((len(rows_n), records.row_bytes), np.uint8), np.empty(len(rows_n), np.int64))
        places_n, into_n = rows_n | number << ROW_BITS, rows_n - first
        wrong = records.unpack(data, records.offsets(rows_n) - start, places_n, ids_n[rows_n], into_n, rows)
        if wrong < 0 and not np.array_equal(rows.versions_n, versions_n[rows_n]):
            wrong = int(np.flatnonzero(rows.versions_n != versions_n[rows_n])[0])
        check_unpacked(wrong, ids_n[rows_n], places_n, records, spec.name, lambda _number: sealed.path)
