"""The ids of a step with how far it moved each row: what best effort needs to know of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pipeline.stream.grouped import GroupedIds, Int64s, copied

Float32s = npt.NDArray[np.float32]

UNKNOWN = 1.0
"""The change of a row of which nobody says it: that of a row which began at zeros."""


class ScoredIds(GroupedIds):
    """``changes_u``: the relative change of each row, aligned with ``ids_u``; None: unknown. Keeps the arrays."""

    __slots__ = ("changes_u", "step")

    def __init__(
        self,
        tables: tuple[str, ...],
        ids_u: Int64s,
        start_t: Int64s,
        selected: tuple[str, ...] | None,
        changes_u: Float32s | None,
        step: int,
    ) -> None:
        super().__init__(tables, ids_u, start_t, selected)
        assert changes_u is None or len(changes_u) == len(ids_u)
        self.changes_u, self.step = changes_u, step

    def changes(self, table: str) -> Float32s:
        """Those of one table."""
        if self.changes_u is None:
            return np.full(len(self[table]), UNKNOWN, np.float32)
        number = self.tables.index(table)
        return self.changes_u[self.start_t[number] : self.start_t[number + 1]]

    @property
    def beside_bytes(self) -> int:
        return 0 if self.changes_u is None else self.changes_u.nbytes

    def copied(self) -> ScoredIds:
        return ScoredIds(self.tables, copied(self.ids_u), self.start_t, self.selected, self.changes_u, self.step)


class SteppedIds(dict[str, Int64s]):
    """Ids by table that changed at ``step``, or behind it: nobody says how far."""

    def __init__(self, ids: Mapping[str, Int64s], step: int) -> None:
        super().__init__(ids)
        self.step = step

    def changes(self, table: str) -> Float32s:
        """As ``ScoredIds.changes``."""
        return np.full(len(self[table]), UNKNOWN, np.float32)
