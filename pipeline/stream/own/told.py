"""What steps told of their rows: rows that were pushed, rows to be read, rows that are gone. Of each id the newest word counts. Pure.

Legend: n ids told; x rows kept; b bytes of a packed row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
RowBytes = npt.NDArray[np.uint8]
READ, GONE = -1, -2
"""In ``where_n``: the row is where its owner has it; there is none any more."""


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """Ids of one table, in the order in which they were told."""

    ids_n: Int64s
    steps_n: Int64s
    """Of each id's last update."""
    where_n: Int64s
    """Which of ``rows_xb`` is the row, or READ or GONE."""
    rows_xb: RowBytes

    @staticmethod
    def of(ids_n: Int64s, step: int, rows_nb: RowBytes | int) -> Told:
        """``rows_nb``: packed rows, kept; or READ or GONE, of all."""
        steps_n = np.full(len(ids_n), step, dtype=np.int64)
        if isinstance(rows_nb, int):
            return Told(ids_n, steps_n, np.full(len(ids_n), rows_nb), np.empty((0, 0), dtype=np.uint8))
        return Told(ids_n, steps_n, np.arange(len(ids_n)), rows_nb)

    @property
    def nbytes(self) -> int:
        return self.ids_n.nbytes + self.steps_n.nbytes + self.where_n.nbytes + self.rows_xb.nbytes

    @property
    def held_ids(self) -> Int64s:
        """Those that are not gone."""
        held_n: Int64s = self.ids_n[self.where_n != GONE]
        return held_n

    def at(self, step: int) -> Told:
        """The same, as of ``step``."""
        return Told(self.ids_n, np.full(len(self.ids_n), step, dtype=np.int64), self.where_n, self.rows_xb)

    def find(self, ids_m: Int64s) -> tuple[Int64s, npt.NDArray[np.bool_]]:
        """Where each of ``ids_m`` stands, and whether it does; of ids that are distinct and rising."""
        at_m = np.searchsorted(self.ids_n, ids_m)
        at_m[at_m == len(self.ids_n)] = 0
        found_m = self.ids_n[at_m] == ids_m if len(self.ids_n) else np.zeros(len(ids_m), dtype=np.bool_)
        return at_m, found_m

    def behind(self, step: int) -> Told:
        """Only what was updated after ``step``."""
        return self._pick(np.flatnonzero(self.steps_n > step))

    def _pick(self, picked: Int64s) -> Told:
        where_n = self.where_n[picked]
        kept = where_n >= 0
        rows_xb = self.rows_xb[where_n[kept]]
        where_n[kept] = np.arange(len(rows_xb))
        return Told(self.ids_n[picked], self.steps_n[picked], where_n, rows_xb)


NOTHING = Told.of(np.empty(0, dtype=np.int64), 0, READ)


def newest(pieces: Sequence[Told]) -> Told:
    """The last word of each id, ids rising. While it works, the rows are held twice. Sorts."""
    if not pieces:
        return NOTHING
    starts = [0, *accumulate(len(piece.rows_xb) for piece in pieces)]
    where_n = np.concatenate(
        [
            np.where(piece.where_n < 0, piece.where_n, piece.where_n + start)
            for piece, start in zip(pieces, starts, strict=False)
        ]
    )
    rows = [piece.rows_xb for piece in pieces if len(piece.rows_xb)]
    everything = Told(
        np.concatenate([piece.ids_n for piece in pieces]),
        np.concatenate([piece.steps_n for piece in pieces]),
        where_n,
        np.concatenate(rows) if len(rows) > 1 else (rows[0] if rows else NOTHING.rows_xb),
    )
    order_n = np.argsort(everything.ids_n, kind="stable")
    rising_n = everything.ids_n[order_n]
    is_last_n = np.append(rising_n[1:] != rising_n[:-1], True)[: len(rising_n)]
    return everything._pick(order_n[is_last_n])
