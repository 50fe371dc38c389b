"""The ids of one step in one array, grouped by table: cut up only when somebody asks for a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


class GroupedIds(Mapping[str, Int64s]):
    """``ids_u`` distinct ids, of table t those from ``start_t[t]`` to ``start_t[t + 1]``. Keeps the arrays."""

    __slots__ = ("ids_u", "start_t", "tables")

    def __init__(self, tables: tuple[str, ...], ids_u: Int64s, start_t: Int64s) -> None:
        self.tables, self.ids_u, self.start_t = tables, ids_u, start_t

    def __len__(self) -> int:
        return len(self.tables)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables)

    def __getitem__(self, table: str) -> Int64s:
        number = self.tables.index(table)
        return self.ids_u[self.start_t[number] : self.start_t[number + 1]]

    @property
    def counts(self) -> dict[str, int]:
        """How many ids each table has."""
        starts = self.start_t.tolist()
        return {table: starts[number + 1] - starts[number] for number, table in enumerate(self.tables)}


def join(steps: list[GroupedIds]) -> tuple[Int64s, Int64s]:
    """The ids of several steps behind one another, and where each table of each step begins there: [G, T + 1]."""
    ids_m = np.concatenate([step.ids_u for step in steps])
    starts_gt = np.array([step.start_t for step in steps], dtype=np.int64)
    starts_gt[1:] += np.cumsum([len(step.ids_u) for step in steps[:-1]], dtype=np.int64)[:, None]
    return ids_m, starts_gt
