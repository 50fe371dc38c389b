"""The ids of one step in one array, grouped by table: cut up only when somebody asks for a table.

Legend: t tables; u ids of a step; g steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


class GroupedIds(Mapping[str, Int64s]):
    """``ids_u`` distinct ids, of table t those from ``start_t[t]`` to ``start_t[t + 1]``. Keeps the arrays.

    As a mapping it has only the ``selected`` of its ``tables``, in their order; not given: all.
    """

    __slots__ = ("ids_u", "selected", "start_t", "tables")

    def __init__(
        self, tables: tuple[str, ...], ids_u: Int64s, start_t: Int64s, selected: tuple[str, ...] | None = None
    ) -> None:
        self.tables, self.ids_u, self.start_t = tables, ids_u, start_t
        self.selected = tables if selected is None else selected

    def __len__(self) -> int:
        return len(self.selected)

    def __iter__(self) -> Iterator[str]:
        return iter(self.selected)

    def __getitem__(self, table: str) -> Int64s:
        number = self.tables.index(table)
        return self.ids_u[self.start_t[number] : self.start_t[number + 1]]

    @property
    def beside_bytes(self) -> int:
        """Memory beside the ids and their block."""
        return 0

    def copied(self) -> GroupedIds:
        """The same with ids that lie by themselves."""
        return GroupedIds(self.tables, copied(self.ids_u), self.start_t, self.selected)

    @property
    def counts(self) -> dict[str, int]:
        """How many ids each selected table has."""
        starts = self.start_t.tolist()
        found = {table: starts[number + 1] - starts[number] for number, table in enumerate(self.tables)}
        return found if self.selected is self.tables else {table: found[table] for table in self.selected}

    def only_selected(self) -> GroupedIds:
        """The same without the ids of other tables."""
        if self.selected is self.tables:
            return self
        counts = self.counts
        start_t = np.cumsum([0, *(counts.get(table, 0) for table in self.tables)], dtype=np.int64)
        return GroupedIds(self.tables, np.concatenate([self.ids_u[:0], *self.values()]), start_t, self.selected)


def copied(ids_u: Int64s) -> Int64s:
    """A copy made without giving up the interpreter's lock: numpy gives it up, and who copies inside the fence then waits until the other
    threads let it have the lock again, a hundred times as long as a few ids take.
    """
    return np.frombuffer(bytearray(np.ascontiguousarray(ids_u).data), np.int64)


def join(steps: list[GroupedIds]) -> tuple[Int64s, Int64s]:
    """The ids of several steps behind one another, and where each table of each step begins there: [g, t + 1]. Those of tables that are not
    selected are left out.
    """
    steps = [step.only_selected() for step in steps]
    ids_m = np.concatenate([step.ids_u for step in steps])
    starts_gt = np.array([step.start_t for step in steps], dtype=np.int64)
    starts_gt[1:] += np.cumsum([len(step.ids_u) for step in steps[:-1]], dtype=np.int64)[:, None]
    return ids_m, starts_gt
