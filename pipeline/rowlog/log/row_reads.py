"""How the log reads single records from its segments: an interface, so that a test double of the files can stand behind it.

Legend: n records of one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.rowlog.log.segment import Segment

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
RowBytes = npt.NDArray[np.uint8]


class RowReads(Protocol):
    """Several threads may call at once. A file stays open for reading, under a number, until it is given back."""

    def open(self, path: str) -> int:
        """Open for reading a file that may still grow; returns its number. Raises OSError with the path."""

    def give_back(self, number: int) -> None:
        """No more reads of this file; none is in progress."""

    def read(self, files_n: Int32s, offsets_n: Int64s, out_nb: RowBytes) -> None:
        """Fill row n of ``out_nb`` [n, bytes of a record] from byte ``offsets_n[n]`` of file ``files_n[n]`` on.

        Blocks. Raises OSError with the path and the offset of a read that failed or came short.
        """

    def stats(self) -> Mapping[str, int]:
        """Figures for a report: what was asked of the disk."""

    def close(self) -> None:
        """Close everything. May be called twice."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is still to be read from files: records of ids ``asked_n`` of the call, at ``places_n``, in ``segments``."""

    asked_n: Int64s
    places_n: Int64s
    segments: Sequence[Segment]
