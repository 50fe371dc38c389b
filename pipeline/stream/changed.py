"""The changed set: which rows changed since they were last published, and which steps ended.

Rules.

1. ``add`` runs inside the fence, where training waits: it keeps a reference to what the step says of itself (or a copy of a few
   ids), and does not look into it. ``take`` swaps references out there.
2. What waits is ids. Whoever has time calls ``compact``, which merges them to distinct ones; when nobody has, ``add``
   does it itself, and counts that.
3. Compaction sorts outside the lock, and throws its work away when the set was taken meanwhile.
4. All ids together, those of the cut that is being published among them, take at most ``limit_bytes``, whatever the receiver does:
   half of it to hold them, and as much again while some are merged. Beyond it the set collapses: it lets its ids go, without a look
   at them, and knows only that rows have changed. Who takes it lists them again, by their versions. Collapses are counted.
"""

from __future__ import annotations

import threading
from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np

from pipeline.stream.grouped import GroupedIds
from pipeline.stream.merging import (
    PIECE_COST,
    Int64s,
    StepIds,
    block_bytes,
    distinct_ids,
    kept,
    pieces_cost,
    step_cost,
)
from pipeline.stream.taken import NO_STEPS, Changed

SMALL = 1 << 16
"""So many ids are not worth merging."""
BACKSTOP = 4
MAX_STEPS = 1 << 18
"""Steps whose ends are remembered; older ones lose their clock, counted."""
LIMIT_BYTES = 256 << 20
LEAST_LIMIT_BYTES = 1 << 16


class ChangedSet:
    """Safe to use from several threads."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._lock = threading.Lock()
        self._pieces: dict[str, list[Int64s]] = {}
        self._told: list[StepIds] = []
        self._steps, self._clocks = array("q"), array("q")
        self._max_steps = min(MAX_STEPS, limit_bytes // 256)  # an eighth of what may be held
        self._most_bytes = limit_bytes // 2
        self._pieces_cost = self._told_cost = self._merged_cost = 0
        self._blocks = 0
        """Bytes that ``_told`` keeps."""
        self._out = 0
        """Bytes of ids that were taken and are neither published nor back."""
        self._turns = 0
        self._dropped = 0
        self.collapsed = False
        """Ids are not known any more; see rule 4."""
        self.rows_told: Counter[str] = Counter()
        """Distinct rows of each step, by table, as far as ``distinct`` or ``compact`` has come."""
        self.last_step = 0
        """The last step that was added."""
        self.inline_compactions = 0
        self.untimed_steps = 0
        self.collapses = 0

    def add(self, step: int, clock_ns: int, ids: StepIds, count: int | None = None) -> None:
        """Step ``step`` ended at ``clock_ns`` and updated these rows, ``count`` in all. Keeps ``ids``."""
        if count is None:
            count = sum(map(len, ids.values()))
        with self._lock:
            if count and self.collapsed:
                self._drop([ids], count)
            elif count:
                ids, nbytes = kept(ids, count)
                self._told.append(ids)
                self._told_cost += count + PIECE_COST * len(ids)
                self._blocks += nbytes
            self._steps.append(step)
            self._clocks.append(clock_ns)
            self.last_step = max(self.last_step, step)
            self._forget_oldest_steps()
            self._keep_within(self._most_bytes)
            crowded = self._cost > BACKSTOP * self._room()
        if crowded:
            self.inline_compactions += 1
            self.compact()

    def add_ended(self, ids: StepIds) -> None:
        """These rows end with the step that is added next. Keeps ``ids``."""
        with self._lock:
            if self.collapsed:
                self._dropped += sum(map(len, ids.values()))
                return
            for table, ids_n in ids.items():
                self._pieces.setdefault(table, []).append(ids_n)
                self._pieces_cost += len(ids_n) + PIECE_COST
            self._keep_within(self._most_bytes)

    def take(self) -> Changed:
        """Everything since the last ``take``; the set is empty afterwards. Constant time but for the steps' clocks.

        What was taken counts as held until it is ``published`` or ``put_back``.
        """
        with self._lock:
            pieces, told, steps, clocks = self._pieces, self._told, self._steps, self._clocks
            collapsed, dropped, nbytes = self.collapsed, self._dropped, self._id_bytes
            self._steps, self._clocks = array("q"), array("q")
            self.collapsed, self._dropped = False, 0
            self._let_go()
            self._out += nbytes
        ended_k2 = np.empty((len(steps), 2), dtype=np.int64)
        ended_k2[:, 0], ended_k2[:, 1] = steps, clocks
        return Changed(pieces, told, ended_k2, collapsed, dropped, nbytes)

    def published(self, changed: Changed) -> None:
        """What was taken, or what ``distinct`` made of it, was published: it need not be kept any more."""
        with self._lock:
            self._count(changed.told)
            self._out -= changed.nbytes

    def distinct(self, changed: Changed) -> Changed:
        """What was taken with one array of distinct, rising ids per table; tables without ids are left out. Sorts.

        It takes the place of ``changed``, which the caller lets go.
        """
        pieces = {table: (ids_n,) for table, ids_n in distinct_ids(changed.by_table()).items()}
        nbytes = 8 * sum(map(pieces_cost, pieces.values()))
        with self._lock:
            self._count(changed.told)
            self._out += nbytes - changed.nbytes
        return Changed(pieces, (), changed.ended_k2, changed.collapsed, changed.dropped, nbytes)

    def put_back(self, changed: Changed) -> None:
        """Return what could not be published: the next ``take`` has it, with all that was added since."""
        with self._lock:
            for table, pieces in changed.pieces.items():
                self._pieces.setdefault(table, []).extend(pieces)
                self._pieces_cost += pieces_cost(pieces)
            self._told.extend(changed.told)  # behind what ``compact`` may be merging: it takes away from the front
            self._told_cost += sum(map(step_cost, changed.told))
            self._blocks += sum(map(block_bytes, changed.told))
            self._out -= changed.nbytes
            self._dropped += changed.dropped
            if self.collapsed or changed.collapsed:
                self.collapses -= not self.collapsed  # it collapsed before it was taken, and was counted then
                self._collapse()
            steps, clocks = (np.ascontiguousarray(column).tobytes() for column in changed.ended_k2.T)
            self._steps = array("q", steps) + self._steps
            self._clocks = array("q", clocks) + self._clocks
            self._forget_oldest_steps()
            self._keep_within(self._most_bytes)

    def compact(self) -> None:
        """Merge what waits to distinct ids. For a lane: it sorts. ``crowded`` says when it pays."""
        with self._lock:
            turns, told = self._turns, list(self._told)
            before = {table: list(pieces) for table, pieces in self._pieces.items()}
        after = distinct_ids(Changed(before, told, NO_STEPS).by_table())
        with self._lock:
            if turns != self._turns:
                return
            for table, ids_n in after.items():
                self._pieces.setdefault(table, [])[: len(before.get(table, ()))] = [ids_n]
            del self._told[: len(told)]
            self._count(told)
            self._merged_cost = pieces_cost(after.values())
            self._pieces_cost = sum(map(pieces_cost, self._pieces.values()))
            self._told_cost = sum(map(step_cost, self._told))
            self._blocks = sum(map(block_bytes, self._told))
            self._keep_within(6 * self._most_bytes // 8)

    def _keep_within(self, most_bytes: int) -> None:
        if not self.collapsed and self.nbytes > most_bytes and (self._pieces or self._told):
            self._collapse()

    def _collapse(self) -> None:
        """Let all ids go. With the lock."""
        self.collapses += not self.collapsed
        self.collapsed = True
        self._drop(self._told, self._num_ids())
        self._let_go()

    def _let_go(self) -> None:
        self._pieces, self._told = {}, []
        self._pieces_cost = self._told_cost = self._merged_cost = self._blocks = 0
        self._turns += 1

    def _drop(self, told: Sequence[StepIds], count: int) -> None:
        self._count(told)
        self._dropped += count

    def _count(self, told: Sequence[StepIds]) -> None:
        for ids in told:
            counts = ids.counts if isinstance(ids, GroupedIds) else {table: len(ids_n) for table, ids_n in ids.items()}
            for table, count in counts.items():  # ``Counter.update`` takes ten times as long
                self.rows_told[table] += count

    @property
    def crowded(self) -> bool:
        """Whether ``compact`` would pay."""
        full = self._cost > self._merged_cost and self.nbytes > 7 * self._most_bytes // 8
        return full or self._cost > self._room()

    @property
    def _cost(self) -> int:
        return self._pieces_cost + self._told_cost

    def _room(self) -> int:
        return 2 * self._merged_cost + SMALL

    def _forget_oldest_steps(self) -> None:
        if len(self._steps) > self._max_steps:
            surplus = len(self._steps) - self._max_steps // 2
            self.untimed_steps += surplus
            del self._steps[:surplus], self._clocks[:surplus]

    @property
    def num_steps(self) -> int:
        """Ended steps that wait."""
        return len(self._steps)

    @property
    def num_waiting(self) -> int:
        """Rows that cuts have left behind; here none: a cut takes all."""
        return 0

    @property
    def count(self) -> int:
        """Ids that wait, repeated ones counted as often as they are held or were let go: an upper bound of the distinct rows."""
        with self._lock:
            return self._num_ids() + self._dropped

    def _num_ids(self) -> int:
        pieces = sum(len(ids_n) for pieces in self._pieces.values() for ids_n in pieces)
        return pieces + sum(len(ids_n) for ids in self._told for ids_n in ids.values())

    @property
    def _id_bytes(self) -> int:
        return 8 * self._pieces_cost + self._blocks

    @property
    def nbytes(self) -> int:
        """Memory held, near enough, what was taken and is not published yet among it."""
        return self._id_bytes + self._out + 16 * len(self._steps)
