"""What was taken from a changed set, for one cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.stream.merging import Int64s, StepIds

NO_STEPS: Int64s = np.empty((0, 2), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Waits:
    """What a cut leaves behind: how many rows, and the oldest of their changes, which is None where there are none."""

    rows: int
    oldest_step: int | None
    oldest_ns: int | None
    """Wall clock of that step's end."""


@dataclass(frozen=True, slots=True)
class Changed:
    """Ids may repeat. Where ``collapsed``, they are not known any more: all rows that changed since the last committed cut are to be
    listed again.
    """

    pieces: Mapping[str, Sequence[Int64s]]
    told: Sequence[StepIds]
    """Steps that were not sorted by table yet, and not counted."""
    ended_k2: Int64s
    """[k, 2]: (step, wall clock ns of its end), steps rising."""
    collapsed: bool = False
    dropped: int = 0
    """Ids that were let go, repeated ones counted as often."""
    nbytes: int = 0
    """Memory of the ids."""

    def by_table(self) -> Mapping[str, Sequence[Int64s]]:
        """All that changed: arrays of ids, by table."""
        found = {table: list(arrays) for table, arrays in self.pieces.items()}
        for ids in self.told:
            for table, ids_n in ids.items():
                if len(ids_n):
                    found.setdefault(table, []).append(ids_n)
        return found

    @property
    def is_empty(self) -> bool:
        return not self.pieces and not self.told and not len(self.ended_k2) and not self.collapsed
