"""A target of one's own, as a user would write it: plain dicts, kept in a place that outlives the replica."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pipeline.replica.cuts import Applied, Cut
from pipeline.wire.frames import HeaderFrame

Row = tuple[bytes, int, dict[str, bytes]]
"""(weights as float32, version, columns that ride along)"""


class DictTarget:
    """See ``pipeline.replica.targets.target.Target``."""

    name = "dicts"
    rows: ClassVar[dict[str, dict[int, Row]]] = {}
    kept: ClassVar[list[bytes]] = []
    steps: ClassVar[list[int]] = []

    def position(self) -> bytes | None:
        return self.kept[-1] if self.kept else None

    def begin(self, header: HeaderFrame, tables: Sequence[str]) -> None:
        del header
        for table in tables:
            self.rows.setdefault(table, {})

    def apply(self, cut: Cut) -> None:
        named: dict[str, set[int]] = {table: set() for table in self.rows}
        for part in cut.parts():
            held, columns = self.rows[part.table], {name: part.column(name) for name in part.carried.columns}
            arrays: Any = zip(part.ids_n.tolist(), part.weights_nd, part.versions_n.tolist(), strict=True)
            for n, (row_id, weights, version) in enumerate(arrays):
                held[row_id] = (
                    weights.tobytes(),
                    version,
                    {name: values[n].tobytes() for name, values in columns.items()},
                )
                named[part.table].add(row_id)
            for row_id in part.tombstones_m.tolist():
                held.pop(row_id, None)
        if cut.snapshot:
            for table, held in self.rows.items():
                for row_id in held.keys() - named[table]:
                    del held[row_id]

    def commit(self, applied: Applied, position: bytes) -> None:
        self.kept.append(position)
        self.steps.append(applied.step)

    def close(self) -> None:
        """Nothing is open."""

    @classmethod
    def forget(cls) -> None:
        for kept in (cls.rows, cls.kept, cls.steps):
            kept.clear()


class NoTarget:
    """Lacks everything."""
