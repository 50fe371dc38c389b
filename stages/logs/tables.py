"""A piece of a log as an Arrow table: what the readers of all formats yield."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.logs.files import LogFile

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SkippedLine:
    """A line that is no row: ``before`` rows of its table precede it."""

    before: int
    line: int
    what: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where reading may start again: a byte of the (decompressed) file and its line, or a row group."""

    offset: int = 0
    line: int = 1


@dataclass(frozen=True, slots=True)
class LogTable:
    """Consecutive rows of one file. ``place`` is where the first of them begins, or the row group that holds it."""

    file: LogFile
    table: pa.Table
    place: Place
    lines_n: Int64s
    """Line (or row) of each row in the file, from 1."""
    unit: Literal["line", "row"]
    skipped: tuple[SkippedLine, ...] = ()
    """Lines that could not even be cut into columns, in order."""
