"""The changed set: which rows changed since they were last published, and which steps ended.

Rules.

1. ``add`` runs inside the fence, where training waits: it appends references. ``take`` swaps them out there.
2. What waits is ids. Whoever has time calls ``compact``, which merges them to distinct ones; when nobody has, ``add``
   does it itself, and counts that. So memory is bounded by the number of distinct rows, whatever the receiver does.
3. Compaction sorts outside the lock, and throws its work away when the set was taken meanwhile.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from pipeline.rows.distinct import drop_repeats

Int64s = npt.NDArray[np.int64]
NO_IDS: Int64s = np.empty(0, dtype=np.int64)

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


@dataclass(frozen=True, slots=True)
class Changed:
    """What was taken. ``pieces`` may repeat ids."""

    pieces: Mapping[str, Sequence[Int64s]]
    ended_k2: Int64s
    """[k, 2]: (step, wall clock ns of its end), steps rising."""

    def distinct(self) -> Changed:
        """The same with one array of distinct, rising ids per table; tables without ids are left out."""
        return Changed({table: (ids_n,) for table, ids_n in distinct_ids(self.pieces).items()}, self.ended_k2)

    @property
    def is_empty(self) -> bool:
        return not self.pieces and not len(self.ended_k2)


class ChangedSet:
    """Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: dict[str, list[Int64s]] = {}
        self._steps, self._clocks = array("q"), array("q")
        self._cost = 0
        self._merged_cost = 0
        self._takes = 0
        self.last_step = 0
        """The last step that was added."""
        self.inline_compactions = 0
        self.untimed_steps = 0

    def add(self, step: int, clock_ns: int, ids: Mapping[str, Int64s]) -> None:
        """Step ``step`` ended at ``clock_ns`` and updated these rows, each named once. Keeps the arrays."""
        with self._lock:
            for table, ids_n in ids.items():
                if len(ids_n):
                    self._pieces.setdefault(table, []).append(ids_n)
                    self._cost += len(ids_n) + PIECE_COST
            self._steps.append(step)
            self._clocks.append(clock_ns)
            self.last_step = max(self.last_step, step)
            self._forget_oldest_steps()
            crowded = self._cost > BACKSTOP * self._room()
        if crowded:
            self.inline_compactions += 1
            self.compact()

    def take(self) -> Changed:
        """Everything since the last ``take``; the set is empty afterwards. Constant time but for the steps' clocks."""
        with self._lock:
            pieces, steps, clocks = self._pieces, self._steps, self._clocks
            self._pieces, self._steps, self._clocks = {}, array("q"), array("q")
            self._cost = self._merged_cost = 0
            self._takes += 1
        ended_k2 = np.empty((len(steps), 2), dtype=np.int64)
        ended_k2[:, 0], ended_k2[:, 1] = steps, clocks
        return Changed(pieces, ended_k2)

    def put_back(self, changed: Changed) -> None:
        """Return what could not be published: the next ``take`` has it, with all that was added since."""
        with self._lock:
            for table, pieces in changed.pieces.items():
                self._pieces.setdefault(table, []).extend(pieces)
                self._cost += sum(len(ids_n) + PIECE_COST for ids_n in pieces)
            steps, clocks = (np.ascontiguousarray(column).tobytes() for column in changed.ended_k2.T)
            self._steps = array("q", steps) + self._steps
            self._clocks = array("q", clocks) + self._clocks
            self._forget_oldest_steps()

    def compact(self) -> None:
        """Merge what waits to distinct ids. For a lane: it sorts. ``crowded`` says when it pays."""
        with self._lock:
            takes, before = self._takes, {table: list(pieces) for table, pieces in self._pieces.items()}
        after = distinct_ids(before)
        with self._lock:
            if takes != self._takes:
                return
            for table, ids_n in after.items():
                self._pieces[table][: len(before[table])] = [ids_n]
            self._merged_cost = sum(len(ids_n) + PIECE_COST for ids_n in after.values())
            self._cost = sum(len(ids_n) + PIECE_COST for pieces in self._pieces.values() for ids_n in pieces)

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
            return sum(len(ids_n) for pieces in self._pieces.values() for ids_n in pieces)

    @property
    def nbytes(self) -> int:
        """Memory held, near enough."""
        return 8 * self._cost + 16 * len(self._steps)
