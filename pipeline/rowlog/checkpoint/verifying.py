"""Checks every byte of a checkpoint that means something: headers, footers, each record, blobs. In bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pipeline.files import Files
from pipeline.rowlog.checkpoint.reader import CheckpointReader
from pipeline.rowlog.errors import RowLogError
from pipeline.rowlog.log.errors import LogCorrupt
from pipeline.rowlog.log.records import HEADER_BYTES, ROW_BITS, Records, Rows
from pipeline.rowlog.log.restore import number_of
from pipeline.rowlog.log.segment_format import SealedSegment, check_header, describe, read_footer
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
                _note(checked, lambda spec=spec, sealed=sealed: _check_segment(reader.files, spec, sealed))
                checked.segments += 1
                checked.records += sealed.num_rows
                checked.nbytes += sealed.size
                yield
    for name, entry in reader.manifest.blobs.items():
        _note(checked, lambda name=name: reader.blob(name))
        checked.paths.add(os.path.join(reader.path, entry.file))
        checked.nbytes += entry.size
        yield


def _note(checked: Checked, check: object) -> None:
    assert callable(check)
    try:
        check()
    except (RowLogError, OSError) as error:
        checked.problems.append(str(error))


def _check_segment(files: Files, spec: TableSpec, sealed: SealedSegment) -> None:
    """Raises LogCorrupt, OtherFormat, OSError."""
    records, number = Records.of(spec), number_of(sealed.path)
    check_header(sealed.path, files.read(sealed.path, 0, HEADER_BYTES), describe(spec, number, records))
    ids_n, versions_n = read_footer(files, sealed)
    per_piece = max(1, PIECE_BYTES // records.block) * records.per_block
    for first in range(0, sealed.num_rows, per_piece):
        rows_n = np.arange(first, min(first + per_piece, sealed.num_rows), dtype=np.int64)
        start, size = HEADER_BYTES + records.data_bytes(first), records.data_bytes(len(rows_n))
        data = np.frombuffer(files.read(sealed.path, start, size), dtype=np.uint8)
        if len(data) != size:
            raise LogCorrupt(sealed.path, start + len(data), "the file ends among its records")
        rows = Rows(np.empty((len(rows_n), records.row_bytes), np.uint8), np.empty(len(rows_n), np.int64))
        places_n, into_n = rows_n | number << ROW_BITS, rows_n - first
        wrong = records.unpack(data, records.offsets(rows_n) - start, places_n, ids_n[rows_n], into_n, rows)
        if wrong < 0 and not np.array_equal(rows.versions_n, versions_n[rows_n]):
            wrong = int(np.flatnonzero(rows.versions_n != versions_n[rows_n])[0])
        if wrong >= 0:
            at = int(records.offsets(rows_n[wrong : wrong + 1])[0])
            what = f"the record of id {int(ids_n[first + wrong])} of table {spec.name!r} is not what was written"
            raise LogCorrupt(sealed.path, at, what)
