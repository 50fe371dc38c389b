"""Expiry: which rows of a dynamic table end, decided purely from the ids of the steps so far.

Rules.

1. A row is used in each step that has its id and in which it exists (``dynamic``). Eval and fetch are no uses.
2. A round is held at the end of the first step that is screened from each multiple of ``every`` on. It ends rows whose last use lies
   ``steps`` or more steps back; then, where more than ``rows`` are left, those of the lowest score until ``rows`` are.
3. Scores: ``last_use``, the step; ``uses``, how often the id occurred, halved at the end of each round. Among equal ones the row not
   used for longer ends first, then the lower id.
4. A row that has ended is forgotten: its id begins anew, in all respects. That holds from the end of the step of the round on, however
   far ahead of training the round is held.

Legend: P positions of the index; U distinct ids of a step; X rows that end, by table, ids rising.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from cuda.plan import Int32s, Int64s
from pipeline.rows.index import IdIndex

Score = Literal["last_use", "uses"]
NOT_HELD: Final = np.iinfo(np.int64).max
MOST_USES: Final = 2**32 - 1
MOST_BUCKETS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ExpiryRule:
    """At least one of ``steps`` and ``rows`` is set."""

    steps: int | None
    rows: int | None
    score: Score
    every: int


@dataclass(frozen=True, slots=True)
class Expired:
    """Rows that end with a step. Shapes [X]."""

    tables_x: Int32s
    ids_x: Int64s
    last_use_x: Int64s
    """A row's version is of this step or of one before."""

    def by_table(self) -> Iterator[tuple[int, Int64s]]:
        """(table's number, ids) of each table that has any: views."""
        bounds = np.flatnonzero(np.diff(self.tables_x, prepend=-1, append=-1)).tolist()
        for start, stop in pairwise(bounds):
            yield int(self.tables_x[start]), self.ids_x[start:stop]


class Uses:
    """When each row of one table was last used, and how often. One thread at a time. About 36 bytes a row."""

    def __init__(self, rule: ExpiryRule) -> None:
        self.rule = rule
        self._index = IdIndex()
        self._last_use_p = np.full(self._index.capacity, NOT_HELD, dtype=np.int64)
        self._uses_p = np.zeros(self._index.capacity, dtype=np.uint32)
        self._rounds = 0
        self.expired = 0

    def add(self, step: int, ids_u: Int64s, times_u: Int64s) -> None:
        """A step uses rows, distinct ids, which occur ``times_u`` each; new ones begin with it."""
        positions_u = self._index.insert(ids_u)
        self._fit()
        self._last_use_p[positions_u] = step
        self._uses_p[positions_u] = np.minimum(self._uses_p[positions_u] + times_u, MOST_USES).astype(np.uint32)

    def _fit(self) -> None:
        more = self._index.capacity - self._last_use_p.shape[0]
        if more > 0:
            self._last_use_p = np.concatenate([self._last_use_p, np.full(more, NOT_HELD, dtype=np.int64)])
            self._uses_p = np.concatenate([self._uses_p, np.zeros(more, dtype=np.uint32)])

    def expire(self, step: int) -> tuple[Int64s, Int64s]:
        """The round of a step, if it has one: forgets rows, and returns their ids, rising, and last uses."""
        if step // self.rule.every <= self._rounds:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        self._rounds = step // self.rule.every
        ends_p = self._unused(step)
        if self.rule.rows is not None:
            excess = self._index.count - int(np.count_nonzero(ends_p)) - self.rule.rows
            if excess > 0:
                ends_p[self._lowest(np.flatnonzero((self._last_use_p != NOT_HELD) & ~ends_p), excess)] = True
        positions_x = np.flatnonzero(ends_p)
        ids_x = self._index.arrays[1][positions_x]
        order = np.argsort(ids_x)
        ids_x, last_use_x = ids_x[order], self._last_use_p[positions_x[order]]
        self._index.remove(ids_x)
        self._last_use_p[positions_x], self._uses_p[positions_x] = NOT_HELD, 0
        if self.rule.score == "uses":
            self._uses_p >>= 1
        self.expired += ids_x.shape[0]
        return ids_x, last_use_x

    def _unused(self, step: int) -> npt.NDArray[np.bool_]:
        """[P] which rows were not used for too long."""
        if self.rule.steps is None:
            return np.zeros(self._last_use_p.shape[0], dtype=np.bool_)
        return self._last_use_p <= step - self.rule.steps

    def _lowest(self, positions_h: Int64s, count: int) -> Int64s:
        """``count`` of these positions, those of the lowest score: of equal ones the next key decides, and at last the id."""
        keys = (self._last_use_p,) if self.rule.score == "last_use" else (self._uses_p, self._last_use_p)
        chosen: list[Int64s] = []
        for key_p in keys:
            key_h = key_p[positions_h]
            most = _lowest_but(key_h, count)
            chosen.append(positions_h[key_h < most])
            count -= chosen[-1].shape[0]
            positions_h = positions_h[key_h == most]
        order = np.argpartition(self._index.arrays[1][positions_h], count - 1)
        return np.concatenate([*chosen, positions_h[order[:count]]])

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Copies."""
        ids, positions = self._index.items()
        return {
            "used_ids": ids,
            "last_use": self._last_use_p[positions],
            "uses": self._uses_p[positions],
            "rounds": np.array([self._rounds, self.expired], dtype=np.int64),
        }

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Into one that is empty."""
        assert self._index.count == 0
        positions = self._index.insert(arrays["used_ids"])
        self._fit()
        self._last_use_p[positions], self._uses_p[positions] = arrays["last_use"], arrays["uses"]
        self._rounds, self.expired = arrays["rounds"].tolist()

    def figures(self) -> dict[str, Any]:
        bytes_held = self._index.nbytes + self._last_use_p.nbytes + self._uses_p.nbytes
        return {"rows": self._index.count, "expired": self.expired, "held_bytes": bytes_held}


def _lowest_but(values_h: npt.NDArray[Any], count: int) -> int:
    """The ``count``-th lowest of values of 0 and above. Most of them are equal, or nearly so: ``np.partition`` is slow at that."""
    low = int(values_h.min())
    buckets_h = np.minimum(values_h - low, MOST_BUCKETS).astype(np.int64, copy=False)
    so_far = np.cumsum(np.bincount(buckets_h))
    bucket = int(np.searchsorted(so_far, count))
    if bucket < MOST_BUCKETS:
        return low + bucket
    rest = count - int(so_far[MOST_BUCKETS - 1])
    return int(np.partition(values_h[buckets_h == MOST_BUCKETS], rest - 1)[rest - 1])
