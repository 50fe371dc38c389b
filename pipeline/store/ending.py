"""Rows that end with steps (``expiry``): told when the steps are reserved, carried out when they have come to their ends.

From the end of such a step on the row is as if it had never been updated: in L1 begun anew where it lies, whoever has pinned it; in no tier
below. Why a reader finds what its snapshot saw: it is *saved to the shadows, then* forgotten; and a reader asks the shadow last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from pipeline.rows.initial import initial_rows
from pipeline.store.expiry import Expired

if TYPE_CHECKING:
    from pipeline.store.reservation import Reservation
    from pipeline.store.residency import Residency
    from pipeline.store.snapshots import Snapshots

ExpiryListener = Callable[[int, Expired], None]
"""Called with a step and the rows that end with it."""


class Ending:
    """``tell`` on prefetch's lane, ``carry_out`` inside the fence, where nobody updates rows."""

    def __init__(self, residency: Residency, snapshots: Snapshots) -> None:
        self._residency, self._snapshots = residency, snapshots
        self._told: dict[int, Expired] = {}
        self.listeners: list[ExpiryListener] = []

    def tell(self, step: int, expired: Expired | None) -> None:
        """These rows end with a step that was reserved."""
        if expired is not None:
            self._told[step] = expired

    def carry_out(self, step: int) -> None:
        """The step has come to its end."""
        expired = self._told.pop(step, None)
        if expired is None:
            return
        self._snapshots.before_end(expired)
        while under_way := self._forget(expired):
            # Such a load may have read what is to be forgotten, and would write it over the new row.
            for reservation in under_way:
                self._residency.read_misses(reservation)
        self._residency.counters.expired_rows += int(expired.ids_x.shape[0])
        for listener in self.listeners:
            listener(step, expired)

    def _forget(self, expired: Expired) -> list[Reservation]:
        """Where one of the rows is on its way into L1: for whom; and nothing is done."""
        residency, tables_x, ids_x = self._residency, expired.tables_x, expired.ids_x
        with residency.residency:
            slots_x = residency.backend.locate(tables_x, ids_x)
            here = np.flatnonzero(slots_x >= 0)
            if under_way := residency.on_their_way(slots_x[here]):
                return under_way
            for number, ended_x in expired.by_table():
                residency.tier.delete(residency.specs[number].name, ended_x)
            for number in np.unique(tables_x[here]).tolist():
                of_table = here[tables_x[here] == number]
                rows_nb = initial_rows(residency.specs[number], ids_x[of_table])
                residency.backend.write_rows(slots_x[of_table], rows_nb, np.zeros(of_table.shape[0], dtype=np.int64))
        return []
