"""From the rows of a frame to weights: what the header says about their tables, held against what came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from pipeline.rows.codec import find_codec
from pipeline.rows.errors import UnknownCodec
from pipeline.wire.errors import FrameError
from pipeline.wire.frames import HeaderFrame, StreamedTable
from pipeline.wire.row_runs import RowRuns

Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WeightBlock:
    """Neighbouring runs ``first .. last``, whose rows are encoded alike, decoded together."""

    first: int
    last: int
    """Behind the last."""
    weights_nd: Float32s
    """C-contiguous."""


def decode_runs(runs: RowRuns, header: HeaderFrame) -> list[WeightBlock]:
    """The weights of all runs, in order.

    Raises FrameError when the header has no such table, this build no such codec, or the rows another length than
    both say.
    """
    return list(_decode(runs, [_described(number, runs, header) for number in range(len(runs.heads))]))


def _decode(runs: RowRuns, described: Sequence[tuple[str, int]]) -> Iterator[WeightBlock]:
    byte = 0
    for (codec, dim), group in groupby(range(len(described)), described.__getitem__):
        numbers = list(group)
        count = sum(runs.heads[number].num_rows for number in numbers)
        nbytes = count * find_codec(codec).row_bytes(dim)
        encoded_nb = runs.rows_b[byte : byte + nbytes].reshape(count, -1) if count else None
        weights_nd = np.empty((0, dim), np.float32) if encoded_nb is None else find_codec(codec).decode(encoded_nb, dim)
        yield WeightBlock(numbers[0], numbers[-1] + 1, weights_nd)
        byte += nbytes


def _described(number: int, runs: RowRuns, header: HeaderFrame) -> tuple[str, int]:
    """(codec, dim) of a run's table, checked."""
    head = runs.heads[number]
    where = f"rows of table {head.table!r}"
    try:
        table = header.table(head.table)
        codec = find_codec(table.codec)
    except (KeyError, UnknownCodec) as error:
        raise FrameError(str(error.args[0]), where) from error
    _check_columns(where, table, runs, number)
    dim = table.spec.dim
    if head.num_rows and head.row_bytes != codec.row_bytes(dim):
        raise FrameError(f"{head.row_bytes} bytes a row; {codec.name} at dim {dim} has {codec.row_bytes(dim)}", where)
    return table.codec, dim


def _check_columns(where: str, table: StreamedTable, runs: RowRuns, number: int) -> None:
    for name, values in runs.columns.get(number, {}).items():
        column = next((column for column in table.spec.layout.columns if column.name == name), None)
        if column is None or values.shape[1] != column.nbytes:
            raise FrameError(f"column {name!r} of {values.shape[1]} bytes is not the header's", where)
