"""One visit to the fence: what changed is taken and the rows are marked, both at the end of one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from pipeline.stream.changed import ChangedSet
from pipeline.stream.merging import Int64s
from pipeline.stream.source import RowSnapshot, RowSource
from pipeline.stream.taken import Changed
from pipeline.wire.dense import DenseArrays


@dataclass(slots=True)
class Frozen:
    """What the visit brought."""

    step: int
    clock_ns: int
    changed: Changed
    rows: RowSnapshot
    """The rows that changed; where ``changed`` is collapsed they are listed by it, if the source can."""
    dense: DenseArrays | None
    everything: RowSnapshot | None

    def close(self) -> None:
        """Let the rows go. May be called twice."""
        self.rows.close()
        if self.everything is not None:
            self.everything.close()


class Listed(Mapping[str, Int64s]):
    """The ids of a snapshot by table, each table's listed anew whenever it is asked for: one table's are in memory at a time."""

    def __init__(self, rows: RowSnapshot, tables: Sequence[str]) -> None:
        self._rows, self._tables = rows, tables

    def __getitem__(self, table: str) -> Int64s:
        return self._rows.ids(table)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)


class Freezer:
    """Its calls are those that run inside the fence. ``dense``: whether the dense weights ride along."""

    def __init__(
        self,
        source: RowSource,
        changed: ChangedSet,
        tables: Mapping[str, object],
        clock: Callable[[], int],
        *,
        dense: bool,
    ) -> None:
        self._source, self._changed, self._tables, self._clock, self._dense = source, changed, tables, clock, dense
        self.lists_changes = getattr(source, "lists_changes", False)

    def freeze(self, step: int, since: int, *, with_everything: bool = False) -> Frozen:
        """Swap references, at the end of ``step``; the last cut was of step ``since``. What was done is undone if the source fails."""
        with ExitStack() as undo:
            changed = self._changed.take()
            undo.callback(self._changed.put_back, changed)
            if changed.collapsed and self.lists_changes:
                rows = self._source.freeze("changed", changed_since=since)
            else:
                rows = self._source.freeze(lambda: self.streamed(changed), changed_since=since)
            undo.callback(rows.close)
            everything = self._source.freeze("all", changed_since=0) if with_everything else None
            if everything is not None:
                undo.callback(everything.close)
            dense = self._source.dense() if self._dense else None
            undo.pop_all()
        return Frozen(step, self._clock(), changed, rows, dense, everything)

    def streamed(self, changed: Changed) -> Mapping[str, Sequence[Int64s]]:
        """What changed of the tables that are streamed."""
        return {name: pieces for name, pieces in changed.by_table().items() if name in self._tables}

    def cannot_list(self, changed: Changed) -> bool:
        """Whether nobody knows any more which rows changed, or ended: only every row that is held tells it."""
        return changed.collapsed and not self.lists_changes
