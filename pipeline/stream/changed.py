"""The changed set: which rows changed since they were last published, and which steps ended.

Rules.

1. ``add`` runs inside the fence, where training waits: it keeps a reference to what the step says of itself, and does not
   look into it. ``take`` swaps references out there.
2. What waits is ids. Whoever has time calls ``compact``, which merges them to distinct ones; when nobody has, ``add``
   does it itself, and counts that. So memory is bounded by the number of distinct rows, whatever the receiver does.
3. Compaction sorts outside the lock, and throws its work away when the set was taken meanwhile.
"""

from __future__ import annotations

import threading
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from pipeline.rows.distinct import drop_repeats
from pipeline.stream.grouped import GroupedIds

Int64s = npt.NDArray[np.int64]
NO_IDS: Int64s = np.empty(0, dtype=np.int64)
NO_STEPS: Int64s = np.empty((0, 2), dtype=np.int64)

SMALL = 1 << 16
"""So many ids are not worth merging."""
PIECE_COST = 16
"""An array costs as much as this many ids, however short it is."""
BACKSTOP = 4
MAX_STEPS = 1 << 18
"""Steps whose ends are remembered; older ones lose their clock, counted."""


def distinct_ids(pieces: Mapping[str, Sequence[Int64s]]) -> dict[str, Int64s]:
    """The ids of all arrays of a table, each once, rising; tables without ids are left out. Sorting releases the GIL."""
    starts = [0, *accumulate(sum(map(len, arrays)) for arrays in pieces.values())]
    merged_n = np.concatenate([NO_IDS, *(ids_n for arrays in pieces.values() for ids_n in arrays)])
    for start, stop in pairwise(starts):
        merged_n[start:stop].sort()  # numpy's sort uses the processor's vectors
    found = zip(pieces, starts, drop_repeats(merged_n, np.array(starts)).tolist(), strict=False)
    # Copies: a view would keep what was merged away.
    return {table: merged_n[start : start + count].copy() for table, start, count in found if count}


StepIds = Mapping[str, Int64s]
"""What one step updated: each table's ids, each named once. It may make its arrays when it is asked for them."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What was taken. Ids may repeat."""

    pieces: Mapping[str, Sequence[Int64s]]
    told: Sequence[StepIds]
    """Steps that were not sorted by table yet, and not counted."""
    ended_k2: Int64s
    """[k, 2]: (step, wall clock ns of its end), steps rising."""

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
        return not self.pieces and not self.told and not len(self.ended_k2)


class ChangedSet:
    """Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: dict[str, list[Int64s]] = {}
        self._told: list[StepIds] = []
        self._steps, self._clocks = array("q"), array("q")
        self._cost = 0
        self._merged_cost = 0
        self._takes = 0
        self.rows_told: Counter[str] = Counter()
        """Distinct rows of each step, by table, as far as ``distinct`` or ``compact`` has come."""
        self.last_step = 0
        """The last step that was added."""
        self.inline_compactions = 0
        self.untimed_steps = 0

    def add(self, step: int, clock_ns: int, ids: StepIds, count: int | None = None) -> None:
        """Step ``step`` ended at ``clock_ns`` and updated these rows, ``count`` in all. Keeps ``ids``."""
        if count is None:
            count = sum(map(len, ids.values()))
        with self._lock:
            if count:
                self._told.append(ids)
                self._cost += count + PIECE_COST * len(ids)
            self._steps.append(step)
            self._clocks.append(clock_ns)
            self.last_step = max(self.last_step, step)
            self._forget_oldest_steps()
            crowded = self._cost > BACKSTOP * self._room()
        if crowded:
            self.inline_compactions += 1
            self.compact()

    def add_ended(self, ids: StepIds) -> None:
        """These rows end with the step that is added next. Keeps ``ids``."""
        with self._lock:
            for table, ids_n in ids.items():
                self._pieces.setdefault(table, []).append(ids_n)
                self._cost += len(ids_n) + PIECE_COST

    def take(self) -> Changed:
        """Everything since the last ``take``; the set is empty afterwards. Constant time but for the steps' clocks."""
        with self._lock:
            pieces, told, steps, clocks = self._pieces, self._told, self._steps, self._clocks
            self._pieces, self._told, self._steps, self._clocks = {}, [], array("q"), array("q")
            self._cost = self._merged_cost = 0
            self._takes += 1
        ended_k2 = np.empty((len(steps), 2), dtype=np.int64)
        ended_k2[:, 0], ended_k2[:, 1] = steps, clocks
        return Changed(pieces, told, ended_k2)

    def count_told(self, told: Sequence[StepIds]) -> None:
        """What ``told`` steps updated was published as it was taken: add it to ``rows_told``."""
        with self._lock:
            self._count(told)

    def distinct(self, changed: Changed) -> Changed:
        """What was taken with one array of distinct, rising ids per table; tables without ids are left out. Sorts."""
        pieces = {table: (ids_n,) for table, ids_n in distinct_ids(changed.by_table()).items()}
        with self._lock:
            self._count(changed.told)
        return Changed(pieces, (), changed.ended_k2)

    def put_back(self, changed: Changed) -> None:
        """Return what could not be published: the next ``take`` has it, with all that was added since."""
        with self._lock:
            for table, pieces in changed.pieces.items():
                self._pieces.setdefault(table, []).extend(pieces)
                self._cost += sum(len(ids_n) + PIECE_COST for ids_n in pieces)
            self._told.extend(changed.told)  # behind what ``compact`` may be merging: it takes away from the front
            self._cost += sum(_cost(ids) for ids in changed.told)
            steps, clocks = (np.ascontiguousarray(column).tobytes() for column in changed.ended_k2.T)
            self._steps = array("q", steps) + self._steps
            self._clocks = array("q", clocks) + self._clocks
            self._forget_oldest_steps()

    def compact(self) -> None:
        """Merge what waits to distinct ids. For a lane: it sorts. ``crowded`` says when it pays."""
        with self._lock:
            takes, told = self._takes, list(self._told)
            before = {table: list(pieces) for table, pieces in self._pieces.items()}
        after = distinct_ids(Changed(before, told, NO_STEPS).by_table())
        with self._lock:
            if takes != self._takes:
                return
            for table, ids_n in after.items():
                self._pieces.setdefault(table, [])[: len(before.get(table, ()))] = [ids_n]
            del self._told[: len(told)]
            self._count(told)
            self._merged_cost = sum(len(ids_n) + PIECE_COST for ids_n in after.values())
            self._cost = sum(len(ids_n) + PIECE_COST for pieces in self._pieces.values() for ids_n in pieces)
            self._cost += sum(_cost(ids) for ids in self._told)

    def _count(self, told: Sequence[StepIds]) -> None:
        for ids in told:
            counts = ids.counts if isinstance(ids, GroupedIds) else {table: len(ids_n) for table, ids_n in ids.items()}
            self.rows_told.update(counts)

    @property
    def crowded(self) -> bool:
        """Whether ``compact`` would pay."""
        return self._cost > self._room()

    def _room(self) -> int:
        return 2 * self._merged_cost + SMALL

    def _forget_oldest_steps(self) -> None:
        if len(self._steps) > MAX_STEPS:
            surplus = len(self._steps) - MAX_STEPS // 2
            self.untimed_steps += surplus
            del self._steps[:surplus], self._clocks[:surplus]

    @property
    def num_steps(self) -> int:
        """Ended steps that wait."""
        return len(self._steps)

    @property
    def count(self) -> int:
        """Ids that wait, repeated ones counted as often as they are held: an upper bound of the distinct rows."""
        with self._lock:
            merged = sum(len(ids_n) for pieces in self._pieces.values() for ids_n in pieces)
            return merged + sum(len(ids_n) for ids in self._told for ids_n in ids.values())

    @property
    def nbytes(self) -> int:
        """Memory held, near enough."""
        return 8 * self._cost + 16 * len(self._steps)


def _cost(ids: StepIds) -> int:
    return sum(map(len, ids.values())) + PIECE_COST * len(ids)
