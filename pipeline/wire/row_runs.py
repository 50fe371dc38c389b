"""The rows of one frame: those of several tables, one table behind the other in one set of arrays.

Legend: t runs; n rows of all runs; m tombstones of all runs; b bytes of one encoded row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
RowBytes = npt.NDArray[np.uint8]

NO_IDS: Int64s = np.empty(0, dtype=np.int64)
NO_IDS.flags.writeable = False
NO_BYTES: RowBytes = np.empty(0, dtype=np.uint8)
NO_BYTES.flags.writeable = False


class RunHead(NamedTuple):
    """What one run holds. A table may come in several runs."""

    table: str
    num_rows: int
    row_bytes: int
    """Of one row, encoded by the table's codec; 0 where there is none."""
    num_dead: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class TableRows:
    """One run by itself. Ids are distinct within a cut and table."""

    table: str
    ids_n: Int64s
    rows_nb: RowBytes
    """Weights, encoded by the table's codec."""
    versions_n: Int64s
    """Packed (``rows.version``): generation and step of each row's last update."""
    tombstones_m: Int64s = field(default_factory=lambda: NO_IDS)
    """Ids whose rows the trainer no longer holds."""
    columns: Mapping[str, RowBytes] = field(default_factory=dict)
    """Other columns of the layout that ride along (states, meta): name to uint8 [n, bytes of the column]."""


@dataclass(frozen=True, slots=True, eq=False)
class RowRuns:
    """See the module docstring. Decoded arrays are read-only views of the frame's memory."""

    heads: tuple[RunHead, ...]
    ids_n: Int64s
    versions_n: Int64s
    rows_b: RowBytes
    """The encoded rows of all runs, without a gap."""
    tombstones_m: Int64s = field(default_factory=lambda: NO_IDS)
    columns: Mapping[int, Mapping[str, RowBytes]] = field(default_factory=dict)
    """Further columns, by the number of the run."""

    @property
    def starts(self) -> list[int]:
        """[t + 1]: where the rows of each run begin."""
        return [0, *accumulate(head.num_rows for head in self.heads)]

    def __iter__(self) -> Iterator[TableRows]:
        """The runs one by one, as views."""
        row = byte = dead = 0
        for number, (table, count, row_bytes, num_dead) in enumerate(self.heads):
            rows_nb = self.rows_b[byte : byte + count * row_bytes].reshape(count, row_bytes)
            yield TableRows(
                table,
                self.ids_n[row : row + count],
                rows_nb,
                self.versions_n[row : row + count],
                self.tombstones_m[dead : dead + num_dead],
                self.columns.get(number, {}),
            )
            row, byte, dead = row + count, byte + count * row_bytes, dead + num_dead
