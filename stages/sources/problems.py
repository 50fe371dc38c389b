"""Finds which rows of a column are bad. Costs nothing while none is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stages.items import Int64s

SHOWN_CHARACTERS = 80


class Problems:
    """Bad rows and the first reason found for each; ``limit`` is how many of one kind are worth finding."""

    def __init__(self, limit: int) -> None:
        self.rows: dict[int, str] = {}
        self.limit = limit

    def add(self, row: int, what: str) -> None:
        self.rows.setdefault(int(row), what)

    def good(self, num_rows: int) -> npt.NDArray[np.bool_]:
        """bool [num_rows]: False for bad rows."""
        good_n = np.ones(num_rows, dtype=np.bool_)
        good_n[list(self.rows)] = False
        return good_n


def cast(
    values: pa.Array, dtype: pa.DataType, column: str, advice: str, rows_n: Int64s, problems: Problems
) -> pa.Array:
    """Cast without loss; bad values are added to ``problems``, with row ``rows_n`` of each, and the result is then
    empty."""
    try:
        return _cast(values, dtype)
    except pa.ArrowInvalid:
        pass
    except pa.ArrowNotImplementedError:
        if len(values):
            problems.add(rows_n[0], f"column {column!r} holds {values.type}, which {advice}")
        return pa.array([], dtype)
    for at in _bad_values(values, dtype, problems.limit):
        problems.add(rows_n[at], f"{_shown(values[at])} in column {column!r} {advice}")
    return pa.array([], dtype)


def _shown(value: pa.Scalar) -> str:
    try:
        return repr(value.as_py())[:SHOWN_CHARACTERS]
    except UnicodeDecodeError:
        return repr(value.cast(pa.binary()).as_py())[:SHOWN_CHARACTERS]


def _cast(values: pa.Array, dtype: pa.DataType) -> pa.Array:
    if values.type == dtype:
        return values
    if pa.types.is_string(values.type):
        values = pc.ascii_trim(values, " \t")  # as the typed parser of CSV does
    return pc.cast(values, dtype)


def _bad_values(values: pa.Array, dtype: pa.DataType, limit: int) -> list[int]:
    """The first ``limit`` positions that cannot be cast, by halving: a cast of a half without one succeeds."""
    found: list[int] = []
    spans = [(0, len(values))]
    while spans and len(found) < limit:
        start, stop = spans.pop()
        try:
            _cast(values.slice(start, stop - start), dtype)
        except pa.ArrowInvalid:
            if stop - start == 1:
                found.append(start)
            else:
                middle = (start + stop) // 2
                spans += [(middle, stop), (start, middle)]
    return found
