"""Row layout: the ordered, named columns of one table's rows. Slots, tiers, files and frames all use it.

A packed row is ``row_bytes`` bytes: the columns in order, each starting at a multiple of its item size, the whole
padded with zeros to a multiple of 16. Weights come first. Arrays of packed rows are ``rows_nb`` uint8 [n, row_bytes]
(the L1 pool's rows may be longer than a table's ``row_bytes``: what lies behind is not read).
The version of a row travels beside it as int64 (see ``version``), not inside. Weights, and states of a number per weight, may be
narrower than float32 (``narrow``); bfloat16, for which numpy has no type, is seen as the uint16 it is stored as.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

Role = Literal["weight", "state", "meta"]
ROW_ALIGNMENT_BYTES = 16
NARROW: Final = ("float16", "bfloat16")


def stored_dtype(dtype: str) -> np.dtype[Any]:
    """How numpy sees a column of this dtype."""
    return np.dtype(np.uint16 if dtype == "bfloat16" else dtype)


@dataclass(frozen=True)
class Column:
    """One named column: ``width`` numbers of ``dtype`` (a numpy name such as ``float32``, or ``bfloat16``) per row."""

    name: str
    dtype: str
    width: int
    role: Role

    @property
    def nbytes(self) -> int:
        return int(stored_dtype(self.dtype).itemsize) * self.width


@dataclass(frozen=True)
class RowLayout:
    """The columns of a row. The first column is ``weight``, of width ``dim``."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if not self.columns or self.columns[0].role != "weight" or len(set(names)) != len(names):
            raise ValueError(f"a layout starts with its weight column and names each column once; got {names}")
        if any(column.width < 1 for column in self.columns):
            raise ValueError("a column is at least one number wide")

    @property
    def dim(self) -> int:
        return self.columns[0].width

    @property
    def weight_dtype(self) -> str:
        return self.columns[0].dtype

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Byte offset of each column in a packed row."""
        offsets, end = {}, 0
        for column in self.columns:
            size = int(stored_dtype(column.dtype).itemsize)
            end = -(-end // size) * size
            offsets[column.name] = end
            end += column.nbytes
        return offsets

    @cached_property
    def row_bytes(self) -> int:
        last = self.columns[-1]
        end = self.offsets[last.name] + last.nbytes
        return -(-end // ROW_ALIGNMENT_BYTES) * ROW_ALIGNMENT_BYTES

    @property
    def states(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.role == "state")

    @property
    def meta(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.role == "meta")

    def view(self, rows_nb: npt.NDArray[np.uint8], name: str, begin: int = 0) -> npt.NDArray[Any]:
        """The column ``name`` of packed rows as [n, width]: a view that shares memory. Each row is contiguous. ``begin``: so many bytes
        of each row are not in ``rows_nb``.
        """
        column, start = self.column(name), self.offsets[name] - begin
        return rows_nb[:, start : start + column.nbytes].view(stored_dtype(column.dtype))

    def singles(self, rows_nb: npt.NDArray[np.uint8], name: str, begin: int = 0) -> npt.NDArray[Any]:
        """The column ``name`` as [n, width] numbers: of 16 bits widened to float32, exactly, in a new array; else ``view``."""
        stored, dtype = self.view(rows_nb, name, begin), self.column(name).dtype
        if dtype not in NARROW:
            return stored
        from pipeline.rows.narrow import widen  # compiled

        return widen(stored, dtype)

    def column(self, name: str) -> Column:
        """Raises KeyError that lists the columns."""
        column = next((column for column in self.columns if column.name == name), None)
        if column is None:
            raise KeyError(f"no column {name!r}; this layout has {[c.name for c in self.columns]}")
        return column

    def empty(self, count: int) -> npt.NDArray[np.uint8]:
        """Zeroed packed rows [count, row_bytes]."""
        return np.zeros((count, self.row_bytes), dtype=np.uint8)
