"""Admission: which ids of a step have rows of their own, decided purely from the ids of the steps before it.

Rules.

1. An id has a row in step s if it occurred at least ``after`` times in the steps before s, every place of every feature counted once.
   So the step that brings its count to ``after`` still answers it with the default row, and the next one that has it begins its row,
   with initial weights. Until it was updated nobody holds the row: eval, fetch and replica answer with the default row.
2. Steps are screened in step order, as they are reserved, however far ahead of training: the decision knows ids alone, so neither
   L1's size nor the lookahead, nor a tier, changes it. A step that is asked for again, as L1 had no room, is decided once.
3. The default row is constant: its gradients are dropped, and counted.
4. Counts are exact for the first ids that ``bytes`` have room for (half of it, ``ID_BYTES`` each, growth included). Other ids are
   counted in a count-min sketch, which has the other half from the first of them on: it may admit an id early, never late. An id
   stays where it was first counted.
5. ``state`` is that of the last step that was screened: asked for where a marker passes prefetch, it is that of the marker's step.

Legend: U distinct pairs of a batch; N its positions; u, n those of one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cuda.plan import Int32s, Int64s, SlotPlan, UniqueIds
from pipeline.rows.index import IdIndex
from pipeline.store import admission_kernels as kernels

ID_BYTES: Final = 64
DEPTH: Final = 4
"""Rows of a sketch."""
LEAST_BYTES: Final = 1 << 16
COUNTING: Final = "exact", "exact, then a count-min sketch of 4 rows (splitmix64)"


@dataclass(frozen=True, slots=True)
class AdmissionRule:
    """A row of its own behind ``after`` occurrences; ``max_bytes`` of memory to count them, ``LEAST_BYTES`` or more."""

    after: int
    max_bytes: int


class Counts:
    """How often each id of one table occurred. One thread at a time."""

    def __init__(self, rule: AdmissionRule) -> None:
        self.rule = rule
        self.most_ids = rule.max_bytes // 2 // ID_BYTES
        self._index = IdIndex()
        self._counts_p = np.zeros(self._index.capacity, dtype=np.uint32)
        self._cells_rw: npt.NDArray[np.uint32] | None = None
        self.default_lookups = 0
        self.admitted = 0

    def before(self, ids_u: Int64s) -> tuple[Int64s, Int64s]:
        """(positions of the ids that are counted exactly, or -1; counts), int64 [u]."""
        positions_u = self._index.find(ids_u)
        counts_u = np.where(positions_u >= 0, self._counts_p[positions_u], 0).astype(np.int64)
        others = np.flatnonzero(positions_u < 0)
        if self._cells_rw is not None and others.shape[0]:
            found = np.empty(others.shape[0], dtype=np.int64)
            kernels.estimate(self._cells_rw, ids_u[others], found)
            counts_u[others] = found
        return positions_u, counts_u

    def add(self, ids_u: Int64s, positions_u: Int64s, times_u: Int64s) -> None:
        """Count distinct ids, ``times_u`` each; ``positions_u`` of ``before``."""
        new = np.flatnonzero(positions_u < 0)
        exact = new[: self.most_ids - self._index.count]
        if exact.shape[0]:
            positions_u = positions_u.copy()
            positions_u[exact] = self._index.insert(ids_u[exact])
            self._fit()
        known = np.flatnonzero(positions_u >= 0)
        at = positions_u[known]
        self._counts_p[at] = np.minimum(self._counts_p[at] + times_u[known], kernels.MOST).astype(np.uint32)
        others = new[exact.shape[0] :]
        if others.shape[0]:
            kernels.add(self._sketch(), ids_u[others], times_u[others])

    def _fit(self) -> None:
        if self._counts_p.shape[0] < self._index.capacity:
            grown_p = np.zeros(self._index.capacity, dtype=np.uint32)
            grown_p[: self._counts_p.shape[0]] = self._counts_p
            self._counts_p = grown_p

    def _sketch(self) -> npt.NDArray[np.uint32]:
        if self._cells_rw is None:
            cells = self.rule.max_bytes // 2 // (4 * DEPTH)
            self._cells_rw = np.zeros((DEPTH, 1 << (cells.bit_length() - 1)), dtype=np.uint32)
        return self._cells_rw

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Copies."""
        ids = self._index.ids()
        arrays: dict[str, npt.NDArray[Any]] = {"ids": ids, "counts": self._counts_p[: ids.shape[0]].copy()}
        if self._cells_rw is not None:
            arrays["sketch"] = self._cells_rw.copy()
        return arrays | {"figures": np.array([self.default_lookups, self.admitted], dtype=np.int64)}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Into counts that are empty."""
        assert self._index.count == 0
        positions = self._index.insert(arrays["ids"])
        self._fit()
        self._counts_p[positions] = arrays["counts"]
        self._cells_rw = arrays.get("sketch")
        self.default_lookups, self.admitted = arrays["figures"].tolist()

    def figures(self) -> dict[str, Any]:
        return {
            "after": self.rule.after,
            "counting": COUNTING[self._cells_rw is not None],
            "exact_ids": self._index.count,
            "admitted": self.admitted,
            "default_lookups": self.default_lookups,
        }


@dataclass(frozen=True, slots=True)
class Screened:
    """What a step uses. ``own`` are the pairs that have rows; its ``inverse_n`` stays that of all pairs."""

    step: int
    all: UniqueIds
    own: UniqueIds
    own_u: npt.NDArray[np.bool_] | None
    """[U] which of ``all`` are in ``own``; None: all of them."""

    def reading(self, plan: SlotPlan, default_slots_t: Int32s) -> SlotPlan:
        """The plan that reads every pair, given that of ``own``: the others read their table's default slot."""
        if self.own_u is None:
            return plan
        slots_u = default_slots_t[self.all.tables_u]
        slots_u[self.own_u] = plan.slots_u
        return SlotPlan(plan.batch, self.all, slots_u)


class Admission:
    """``rules_t``: of each table, in the backend's order; None where every id has a row."""

    def __init__(self, names: tuple[str, ...], rules_t: tuple[AdmissionRule | None, ...]) -> None:
        self._counts = {
            t: (name, Counts(rule)) for t, (name, rule) in enumerate(zip(names, rules_t, strict=True)) if rule
        }
        self._last: Screened | None = None

    def screen(self, step: int, unique: UniqueIds) -> Screened:
        """Decide for the next step, and count its ids. The same again for a step that was screened last. Prefetch's lane."""
        if self._last is None or self._last.step != step:
            self._last = self._screen(step, unique)
        return self._last

    def _screen(self, step: int, unique: UniqueIds) -> Screened:
        own_u, times_u = np.ones(unique.count, dtype=np.bool_), np.diff(unique.occurrence_start_u)
        for table, (_, counts) in self._counts.items():
            part = slice(*unique.table_start_t[table : table + 2].tolist())
            positions, before = counts.before(unique.ids_u[part])
            counts.add(unique.ids_u[part], positions, times_u[part])
            after = counts.rule.after
            own_u[part] = before >= after
            counts.default_lookups += int(times_u[part][before < after].sum())
            counts.admitted += int(np.count_nonzero((before < after) & (before + times_u[part] >= after)))
        if bool(own_u.all()):
            return Screened(step, unique, unique, None)
        return Screened(step, unique, only(unique, own_u, times_u), own_u)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that ``restore`` needs, copied, by name: behind the step screened last. Prefetch's lane."""
        return {
            f"{name}/{key}": values for name, counts in self._counts.values() for key, values in counts.state().items()
        }

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Before the first step is screened."""
        for name, counts in self._counts.values():
            counts.restore({key[len(name) + 1 :]: arrays[key] for key in arrays if key.startswith(f"{name}/")})

    def figures(self) -> dict[str, Any]:
        """For the report, by table."""
        return {name: counts.figures() for name, counts in self._counts.values()}


def only(unique: UniqueIds, own_u: npt.NDArray[np.bool_], times_u: Int64s) -> UniqueIds:
    """The pairs of ``own_u`` [U] alone, in their order; ``inverse_n`` is left as it was."""
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(own_u, dtype=np.int64)])
    return UniqueIds(
        ids_u=unique.ids_u[own_u],
        tables_u=unique.tables_u[own_u],
        table_start_t=starts[unique.table_start_t],
        inverse_n=unique.inverse_n,
        occurrence_start_u=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(times_u[own_u], dtype=np.int64)]),
        occurrences_n=unique.occurrences_n[np.repeat(own_u, times_u)],
    )
