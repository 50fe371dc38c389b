"""Byte shuffle: the first bytes of all numbers, then the second ones, and so on, so that bytes which are alike stand together.

Pure: n items of w bytes, uint8 [n, w], travel as their transpose [w, n].
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.wire.row_runs import RowBytes, RunHead

PARTS: Final = ("ids", "rows", "versions", "dead")
"""What of a rows frame may travel shuffled; ids, versions and dead ids as one array each, rows run by run."""


def shuffle_numbers(numbers_n: npt.NDArray[np.int64]) -> RowBytes:
    """int64 [n] -> a new array uint8 [8 * n]."""
    return _transposed(np.ascontiguousarray(numbers_n, dtype="<i8").view(np.uint8).reshape(-1, 8))


def unshuffle_numbers(data_b: RowBytes) -> npt.NDArray[np.int64]:
    """The other way; read-only, as what is read from a frame is."""
    return _fixed(_transposed(data_b.reshape(8, -1)).view("<i8").astype(np.int64, copy=False))


def shuffle_rows(rows_b: RowBytes, heads: Iterable[RunHead]) -> RowBytes:
    """The rows of all runs, each run by itself -> a new array of as many bytes."""
    return _runs(rows_b, heads, lambda count, width: (count, width))


def unshuffle_rows(data_b: RowBytes, heads: Iterable[RunHead]) -> RowBytes:
    """The other way; read-only."""
    return _fixed(_runs(data_b, heads, lambda count, width: (width, count)))


def _runs(data_b: RowBytes, heads: Iterable[RunHead], shape: Any) -> RowBytes:
    out_b, at = np.empty_like(data_b), 0
    for head in heads:
        end = at + head.num_rows * head.row_bytes
        out_b[at:end] = _transposed(data_b[at:end].reshape(shape(head.num_rows, head.row_bytes)))
        at = end
    return out_b


def _transposed(items_nw: RowBytes) -> RowBytes:
    return np.ascontiguousarray(items_nw.T).reshape(-1)


def _fixed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array
