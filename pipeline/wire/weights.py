"""From a part of a rows frame to weights: what the header says about its table, held against what came."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.rows.codec import find_codec
from pipeline.rows.errors import UnknownCodec
from pipeline.wire.errors import FrameError
from pipeline.wire.frames import HeaderFrame, TableRows


def part_weights(part: TableRows, header: HeaderFrame) -> npt.NDArray[np.float32]:
    """The weights of a part's rows, decoded: float32 [n, dim], C-contiguous.

    Raises FrameError when the header has no such table, this build no such codec, or the rows another length than
    both say.
    """
    where = f"rows of table {part.table!r}"
    try:
        table = header.table(part.table)
        codec = find_codec(table.codec)
    except (KeyError, UnknownCodec) as error:
        raise FrameError(str(error.args[0]), where) from error
    for name, values in part.columns.items():
        column = next((column for column in table.spec.layout.columns if column.name == name), None)
        if column is None or values.shape[1] != column.nbytes:
            raise FrameError(f"column {name!r} of {values.shape[1]} bytes is not the header's", where)
    count, width, dim = *part.rows_nb.shape, table.spec.dim
    if count == 0:
        return np.empty((0, dim), dtype=np.float32)
    if width != codec.row_bytes(dim):
        raise FrameError(f"{width} bytes a row; {codec.name} at dim {dim} has {codec.row_bytes(dim)}", where)
    return codec.decode(part.rows_nb, dim)
