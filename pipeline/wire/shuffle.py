"""How the parts of a rows frame are arranged before compression, so that bytes which are alike stand together.

Shuffled: the first bytes of all numbers, then the second ones, and so on: n items of w bytes, uint8 [n, w], travel as their transpose
[w, n]. Told as differences: each number less the one before it, modulo 2^64. First differences, then the shuffle; all of it is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.rows.transpose import transpose_bytes
from pipeline.wire.row_runs import RowBytes, RunHead

PARTS: Final = ("ids", "rows", "versions", "dead")
"""What of a rows frame may travel shuffled; ids, versions and dead ids as one array each, rows run by run."""


NUMBERS: Final = ("ids", "versions", "dead")
"""What of it may travel as differences."""


def differences(numbers_n: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64 [n] -> a new array: the first number, then each less the one before it, modulo 2^64."""
    return np.diff(numbers_n, prepend=np.zeros(min(1, len(numbers_n)), dtype=np.int64))


def sums(differences_n: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The other way; read-only."""
    return _fixed(np.cumsum(differences_n, dtype=np.int64))


def shuffle_numbers(numbers_n: npt.NDArray[np.int64]) -> RowBytes:
    """int64 [n] -> a new array uint8 [8 * n]."""
    return transpose_bytes(np.ascontiguousarray(numbers_n, dtype="<i8").view(np.uint8), len(numbers_n), 8)


def unshuffle_numbers(data_b: RowBytes) -> npt.NDArray[np.int64]:
    """The other way; read-only, as what is read from a frame is."""
    return _fixed(transpose_bytes(data_b, 8, len(data_b) // 8).view("<i8").astype(np.int64, copy=False))


def shuffle_rows(rows_b: RowBytes, heads: Sequence[RunHead]) -> RowBytes:
    """The rows of all runs, each run by itself -> a new array of as many bytes."""
    return _join([transpose_bytes(run_b, head.num_rows, head.row_bytes) for head, run_b in _runs(rows_b, heads)])


def unshuffle_rows(data_b: RowBytes, heads: Sequence[RunHead]) -> RowBytes:
    """The other way; read-only."""
    return _fixed(
        _join([transpose_bytes(run_b, head.row_bytes, head.num_rows) for head, run_b in _runs(data_b, heads)])
    )


def _runs(rows_b: RowBytes, heads: Sequence[RunHead]) -> Iterator[tuple[RunHead, RowBytes]]:
    at = 0
    for head in heads:
        end = at + head.num_rows * head.row_bytes
        if end > at:
            yield head, rows_b[at:end]
        at = end


def _join(runs: list[RowBytes]) -> RowBytes:
    return runs[0] if len(runs) == 1 else np.concatenate([np.empty(0, dtype=np.uint8), *runs])


def _fixed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array
