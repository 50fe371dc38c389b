"""Which rows a snapshot covers: what has to be saved of them before a step writes them, or they end.

A snapshot of packed version S with lower bound L covers rows with L < version <= S. L is -1 unless only the rows changed since some
version are wanted; then a row of version 0, never updated, is covered too, so that its first update saves it. Where rows may end, it is
with a lower bound as well: it may have ended since, and is asked for then.

A row that ends has version 0 from then on. What was covered of it was saved, or it had changed after S: it is not covered again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cuda.plan import Int32s, Int64s
from pipeline.rows.index import IdIndex
from pipeline.rows.version import MAX_STEP

Members = Mapping[int, IdIndex]
"""By number of the table: ids."""


class Coverage:
    """``members``: the rows it is restricted to, if any; ``forgets``: whether rows may end. The compute lane's."""

    def __init__(self, low: int, version: int, members: Members | None, forgets: bool) -> None:
        self.low, self.version, self.members, self.forgets = low, version, members, forgets
        self._ended: dict[int, IdIndex] = {}

    def of(self, tables_n: Int32s, ids_n: Int64s, versions_n: Int64s) -> Int64s:
        """Positions of the rows that are covered."""
        covered_n = versions_n > self.low
        if self.forgets and self.low > 0:
            covered_n |= versions_n == 0
        hits = np.flatnonzero(covered_n & (versions_n <= self.version))
        if self.members is not None and hits.shape[0]:
            hits = hits[among(self.members, tables_n[hits], ids_n[hits])]
        if self._ended and hits.shape[0]:
            hits = hits[(versions_n[hits] > 0) | ~among(self._ended, tables_n[hits], ids_n[hits])]
        return hits

    def strangers(self, versions_n: Int64s) -> Int64s:
        """Positions of rows that a reader should not have come to."""
        early_n = versions_n <= self.low
        if self.forgets:
            early_n &= versions_n != 0
        return np.flatnonzero(early_n | (versions_n > self.version))

    def may_be_ending(self, last_use_x: Int64s) -> npt.NDArray[np.bool_]:
        """Which rows that are about to end may be covered, and have to be told to ``end``."""
        if self.low < 0:
            return np.ones(last_use_x.shape[0], dtype=np.bool_)
        return last_use_x > self.low & MAX_STEP

    def end(self, tables_x: Int32s, ids_x: Int64s) -> None:
        """These rows, updated ones, end."""
        for number in np.unique(tables_x).tolist():
            self._ended.setdefault(number, IdIndex()).insert(ids_x[tables_x == number])


def among(held: Members, tables_n: Int32s, ids_n: Int64s) -> npt.NDArray[np.bool_]:
    """Which of these pairs are in ``held``."""
    among_n = np.zeros(ids_n.shape[0], dtype=np.bool_)
    for number, members in held.items():
        of_table = np.flatnonzero(tables_n == number)
        if of_table.shape[0]:
            among_n[of_table] = members.find(ids_n[of_table]) >= 0
    return among_n


def index_members(ids: Mapping[str, Int64s], tables: Mapping[str, int]) -> dict[int, IdIndex]:
    """By number of the table: which rows a snapshot of ``ids`` is taken for."""
    members = {}
    for name, wanted in ids.items():
        members[tables[name]] = index = IdIndex(int(wanted.shape[0]))
        index.insert(wanted)
    return members
