"""The changed set of best effort: rows leave it when they are sent, some of them in each cut.

Rules.

1. What steps told is folded into what waits, by whoever has ``folding``: a cut from its visit to the fence until it has chosen, so that
   nothing newer than its step is in what it chooses from; else ``compact``.
2. What was chosen is ``put_back`` where it was not published: changes meanwhile are added to it.
3. The ends of steps wait until nothing that changed then, or before, does.
4. Half of the memory is for what is told and not folded, which collapses as ever, half for what waits, with what it takes to merge it.
   Where that is full the whole set collapses: the next cut lists what changed behind ``RowStreamer.sent_step``, and carries all of it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.stream.changed import ChangedSet
from pipeline.stream.merging import Int64s, StepIds
from pipeline.stream.scored import Float32s, ScoredIds, SteppedIds
from pipeline.stream.taken import NO_STEPS, Changed, Waits
from pipeline.stream.waiting import ROW_BYTES, Rows, choose, gather, merge

ENDED = np.float32(np.inf)
"""The score of a row that ended: few bytes, and it must not be answered any more."""


@dataclass(frozen=True, slots=True)
class Chosen(Changed):
    """What one cut carries of what waits. ``pieces`` are the ids of ``rows``."""

    rows: Mapping[str, Rows] = field(default_factory=dict)
    waits: Waits = field(default_factory=lambda: Waits(0, None, None))
    """What it leaves behind."""
    due_cost: float = 0.0
    """What those that had to go are taken to cost."""
    oldest_ns: int | None = None
    """Wall clock of the oldest change before the choice."""

    @property
    def num_rows(self) -> int:
        """That go."""
        return sum(len(rows.ids_n) for rows in self.rows.values())


class PrioritySet(ChangedSet):
    """Safe to use from several threads; see rule 1."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes // 2)
        self.folding = threading.Lock()
        self._waiting: dict[str, Rows] = {}
        self._most_rows = limit_bytes // 3 // ROW_BYTES
        self._ends = NO_STEPS

    def add(self, step: int, clock_ns: int, ids: StepIds, count: int | None = None) -> None:
        if not isinstance(ids, ScoredIds | SteppedIds):
            ids = SteppedIds(ids, step)
        super().add(step, clock_ns, ids, count)

    def compact(self) -> None:
        """Fold, unless somebody does it already."""
        if self.collapsed or not self.folding.acquire(blocking=False):
            return
        try:
            changed = self.take()
            if changed.collapsed:
                super().put_back(changed)
            else:
                self.fold(changed)
        finally:
            self.folding.release()

    def fold(self, changed: Changed) -> None:
        """Take up what was taken. With ``folding``. Of a set that has collapsed: what waits is let go, and ``ends`` are taken over."""
        self._ends = np.concatenate([self._ends, changed.ended_k2])
        self.untimed_steps += max(0, len(self._ends) - self._max_steps)
        self._ends = self._ends[-self._max_steps :]
        if changed.collapsed:
            self._waiting = {}
            return
        first = int(changed.ended_k2[0, 0]) if len(changed.ended_k2) else self.last_step + 1
        told: dict[str, list[tuple[Int64s, Float32s, int]]] = {}
        for ids in changed.told:
            assert isinstance(ids, ScoredIds | SteppedIds)
            for table, ids_n in ids.items():
                told.setdefault(table, []).append((ids_n, ids.changes(table), ids.step))
        for table, pieces in changed.pieces.items():
            ended = ((ids_n, np.full(len(ids_n), ENDED, np.float32), first) for ids_n in pieces)
            told.setdefault(table, []).extend(ended)
        self._add({table: gather(pieces) for table, pieces in told.items()})
        super().published(changed)

    def _add(self, rows: Mapping[str, Rows]) -> None:
        for table, new in rows.items():
            held = self._waiting.get(table)
            self._waiting[table] = new if held is None else merge(held, new)
        waiting = self.num_waiting
        if waiting > self._most_rows:
            self._waiting = {}
            with self._lock:
                self._collapse()
                self._dropped += waiting

    def choose(
        self,
        step: int,
        now_ns: int,
        cost: Mapping[str, float],
        room: float,
        due_ns: int | None,
        streamed: Mapping[str, object],
    ) -> Chosen:
        """What a cut at the end of ``step`` carries, with ``folding``, right behind ``fold``; see ``waiting.choose``.

        Due is what waits since wall clock ``due_ns`` or before; None: everything.
        """
        waiting = {name: rows for name, rows in self._waiting.items() if name in streamed and len(rows.ids_n)}
        due_step = step + 1 if due_ns is None else self._step_at(due_ns)
        oldest_ns = self._waits(waiting, now_ns).oldest_ns
        chosen, due_cost = choose(waiting, cost, room, due_step)
        rows = {name: waiting[name].some(chosen_n) for name, chosen_n in chosen.items() if chosen_n.any()}
        self._waiting = {
            name: waiting[name].some(~chosen_n) if name in rows else waiting[name]
            for name, chosen_n in chosen.items()
            if not chosen_n.all()
        }
        waits = self._waits(self._waiting, now_ns)
        sent = step if waits.oldest_step is None else waits.oldest_step - 1
        ended_k2 = self._ends[self._ends[:, 0] <= sent]
        pieces = {name: (one.ids_n,) for name, one in rows.items()}
        return Chosen(pieces, (), ended_k2, False, 0, 0, rows, waits, due_cost, oldest_ns)

    def _waits(self, rows: Mapping[str, Rows], now_ns: int) -> Waits:
        count = sum(len(one.ids_n) for one in rows.values())
        if not count:
            return Waits(0, None, None)
        oldest = min(int(one.steps_n.min()) for one in rows.values())
        behind = np.flatnonzero(self._ends[:, 0] >= oldest)
        return Waits(count, oldest, int(self._ends[behind[0], 1]) if len(behind) else now_ns)

    def _step_at(self, clock_ns: int) -> int:
        """The last step that had ended then; -1: none that is known."""
        ended = np.flatnonzero(self._ends[:, 1] <= clock_ns)
        return int(self._ends[ended[-1], 0]) if len(ended) else -1

    def all_of(self, changed: Changed) -> Changed:
        """A set that has collapsed with the ends of all steps that wait: its cut carries everything. With ``folding``, behind ``fold``."""
        ended_k2, self._ends = self._ends, NO_STEPS
        return replace(changed, ended_k2=ended_k2)

    def distinct(self, changed: Changed) -> Changed:
        return changed if isinstance(changed, Chosen) else super().distinct(changed)

    def published(self, changed: Changed) -> None:
        if not isinstance(changed, Chosen):
            super().published(changed)
        elif len(changed.ended_k2):
            with self.folding:
                self._ends = self._ends[self._ends[:, 0] > changed.ended_k2[-1, 0]]

    def put_back(self, changed: Changed) -> None:
        if not isinstance(changed, Chosen):
            super().put_back(changed)
            return
        with self.folding:
            self._add(changed.rows)

    @property
    def num_waiting(self) -> int:
        """Rows that were told, and not sent."""
        return sum(len(rows.ids_n) for rows in self._waiting.values())

    @property
    def num_steps(self) -> int:
        return super().num_steps + max(len(self._ends), bool(self._waiting))

    @property
    def count(self) -> int:
        return super().count + self.num_waiting

    @property
    def waiting_bytes(self) -> int:
        """Memory of what waits."""
        return ROW_BYTES * self.num_waiting + self._ends.nbytes
