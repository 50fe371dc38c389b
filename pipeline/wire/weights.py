"""The rows of a frame, by how they are encoded: what the header says about their tables, held against what came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from pipeline.rows.codec import Codec, find_codec
from pipeline.rows.errors import BadCodec, UnknownCodec
from pipeline.wire.errors import FrameError
from pipeline.wire.frames import HeaderFrame, StreamedTable
from pipeline.wire.row_runs import RowBytes, RowRuns

Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Neighbouring runs ``first .. last``, whose rows are encoded alike."""

    first: int
    last: int
    """Behind the last."""
    codec: Codec
    dim: int
    encoded_nb: RowBytes
    """The rows of these runs as they came: a view."""

    @property
    def weights_nd(self) -> Float32s:
        """Decoded: a new array, C-contiguous."""
        return self.codec.decode(self.encoded_nb, self.dim)


def split_runs(runs: RowRuns, header: HeaderFrame) -> list[RowBlock]:
    """The rows of all runs, in order.

    Raises FrameError when the header has no such table, this build no such codec, or the rows another length than
    both say.
    """
    return list(_split(runs, [_described(number, runs, header) for number in range(len(runs.heads))]))


def _split(runs: RowRuns, described: Sequence[tuple[str, int]]) -> Iterator[RowBlock]:
    byte = 0
    for (name, dim), group in groupby(range(len(described)), described.__getitem__):
        numbers, codec = list(group), find_codec(name)
        count = sum(runs.heads[number].num_rows for number in numbers)
        row_bytes = codec.row_bytes(dim)
        encoded_nb = runs.rows_b[byte : byte + count * row_bytes].reshape(count, row_bytes)
        yield RowBlock(numbers[0], numbers[-1] + 1, codec, dim, encoded_nb)
        byte += count * row_bytes


def _described(number: int, runs: RowRuns, header: HeaderFrame) -> tuple[str, int]:
    """(codec, dim) of a run's table, checked."""
    head = runs.heads[number]
    where = f"rows of table {head.table!r}"
    try:
        table = header.table(head.table)
        codec = find_codec(table.codec)
    except (KeyError, UnknownCodec, BadCodec) as error:
        raise FrameError(str(error.args[0]), where) from error
    _check_columns(where, table, runs, number)
    dim = table.spec.dim
    if head.num_rows and head.row_bytes != codec.row_bytes(dim):
        raise FrameError(f"{head.row_bytes} bytes a row; {codec.name} at dim {dim} has {codec.row_bytes(dim)}", where)
    return table.codec, dim


def _check_columns(where: str, table: StreamedTable, runs: RowRuns, number: int) -> None:
    found, carries = runs.columns.get(number, {}), table.carries if runs.heads[number].num_rows else ()
    if found.keys() != set(carries):
        raise FrameError(f"columns {sorted(found)} ride along, by the header {sorted(carries)} do", where)
    for name, values in found.items():
        column = table.spec.layout.column(name)
        if values.shape[1] != column.nbytes:
            raise FrameError(f"column {name!r} has {values.shape[1]} bytes a row, by the header {column.nbytes}", where)
