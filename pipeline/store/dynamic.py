"""Dynamic tables: which ids have rows in a step, decided purely from the ids of the steps before it (``admission``, ``expiry``).

Rules.

1. Steps are screened in step order, as they are reserved, however far ahead of training: what is decided knows ids alone, so neither
   L1's size nor the lookahead, nor a tier, changes it. A step that is asked for again, as L1 had no room, is decided once.
2. A row that comes from outside (``Store.load``, an import) exists from its step on, whatever was counted.
3. Rows that end with a step exist in it; from its end on they do not. The store carries that out when the step has come to its end.
4. ``state`` is that of the last step that was screened: asked for where a marker passes prefetch, it is that of the marker's step.

Legend: U distinct pairs of a batch; N its positions; X rows that end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cuda.plan import Int32s, Int64s, SlotPlan, UniqueIds
from pipeline.store.admission import AdmissionRule, Counts
from pipeline.store.expiry import Expired, ExpiryRule, Uses


@dataclass(frozen=True, slots=True)
class Screened:
    """What a step uses. ``own`` are the pairs that have rows; its ``inverse_n`` stays that of all pairs."""

    step: int
    all: UniqueIds
    own: UniqueIds
    own_u: npt.NDArray[np.bool_] | None
    """[U] which of ``all`` are in ``own``; None: all of them."""
    expired: Expired | None
    """Rows that end with the step, some of ``own`` perhaps."""

    def reading(self, plan: SlotPlan, default_slots_t: Int32s) -> SlotPlan:
        """The plan that reads every pair, given that of ``own``: the others read their table's default slot."""
        if self.own_u is None:
            return plan
        slots_u = default_slots_t[self.all.tables_u]
        slots_u[self.own_u] = plan.slots_u
        return SlotPlan(plan.batch, self.all, slots_u)


class DynamicTables:
    """``admissions_t`` and ``expiries_t``: of each table, in the backend's order; None where every id is admitted, or no row expires."""

    def __init__(
        self,
        names: Sequence[str],
        admissions_t: Sequence[AdmissionRule | None],
        expiries_t: Sequence[ExpiryRule | None],
    ) -> None:
        self._names = tuple(names)
        self._counts = {t: Counts(rule) for t, rule in enumerate(admissions_t) if rule is not None}
        self._uses = {t: Uses(rule) for t, rule in enumerate(expiries_t) if rule is not None}
        self._last: Screened | None = None

    @property
    def expire(self) -> bool:
        """Whether rows of any table do."""
        return bool(self._uses)

    def screen(self, step: int, unique: UniqueIds) -> Screened:
        """Decide for the next step, and count its ids. The same again for a step that was screened last. Prefetch's lane."""
        if self._last is None or self._last.step != step:
            self._last = self._screen(step, unique)
        return self._last

    def _screen(self, step: int, unique: UniqueIds) -> Screened:
        times_u = np.diff(unique.occurrence_start_u)
        own_u = self._admit(unique, times_u) if self._counts else np.ones(unique.count, dtype=np.bool_)
        own, which_u = (unique, None) if bool(own_u.all()) else (only(unique, own_u, times_u), own_u)
        return Screened(step, unique, own, which_u, self._end(step, own) if self._uses else None)

    def _admit(self, unique: UniqueIds, times_u: Int64s) -> npt.NDArray[np.bool_]:
        """[U] which pairs have rows."""
        own_u = np.ones(unique.count, dtype=np.bool_)
        for table, counts in self._counts.items():
            part, after = _part(unique, table), counts.rule.after
            positions, before = counts.before(unique.ids_u[part])
            counts.add(unique.ids_u[part], positions, before, times_u[part])
            own_u[part] = before >= after
            counts.default_lookups += int(times_u[part][before < after].sum())
            counts.admitted += int(np.count_nonzero((before < after) & (before + times_u[part] >= after)))
        return own_u

    def _end(self, step: int, own: UniqueIds) -> Expired | None:
        """Count the uses of a step's rows, and hold its rounds."""
        times_u = np.diff(own.occurrence_start_u)
        ended: list[tuple[int, Int64s, Int64s]] = []
        for table, uses in self._uses.items():
            part = _part(own, table)
            uses.add(step, own.ids_u[part], times_u[part])
            ids_x, last_use_x = uses.expire(step)
            if ids_x.shape[0]:
                ended.append((table, ids_x, last_use_x))
                if table in self._counts:
                    self._counts[table].forget(ids_x)
        if not ended:
            return None
        tables, ids, last_uses = zip(*ended, strict=True)
        numbers_x = np.repeat(np.array(tables, dtype=np.int32), [one.shape[0] for one in ids])
        return Expired(numbers_x, np.concatenate(ids), np.concatenate(last_uses))

    def bring(self, step: int, table: int, ids_n: Int64s) -> None:
        """Rows of distinct ids come from outside with a step that is not screened: they exist from then on, as if used in it once.
        Between two screened steps.
        """
        if table in self._counts:
            counts = self._counts[table]
            positions, before = counts.before(ids_n)
            counts.add(ids_n, positions, before, np.maximum(counts.rule.after - before, 0))
        if table in self._uses:
            self._uses[table].add(step, ids_n, np.ones(ids_n.shape[0], dtype=np.int64))

    def bring_all(self, step: int, unique: UniqueIds) -> None:
        """The same of several tables."""
        for table in {*self._counts, *self._uses}:
            self.bring(step, table, unique.ids_u[_part(unique, table)])

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that ``restore`` needs, copied, by name: behind the step screened last. Prefetch's lane."""
        return {
            f"{self._names[table]}/{key}": values for table, one in self._parts for key, values in one.state().items()
        }

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Before the first step is screened."""
        for table, one in self._parts:
            under = f"{self._names[table]}/"
            one.restore({key[len(under) :]: arrays[key] for key in arrays if key.startswith(under)})

    @property
    def _parts(self) -> Iterator[tuple[int, Counts | Uses]]:
        yield from self._counts.items()
        yield from self._uses.items()

    def figures(self) -> dict[str, Any]:
        """For the report: ``admission`` and ``expiry``, each by table; what no table has is left out."""
        admission = {self._names[table]: one.figures() for table, one in self._counts.items()}
        expiry = {self._names[table]: one.figures() for table, one in self._uses.items()}
        return {name: part for name, part in (("admission", admission), ("expiry", expiry)) if part}


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


def _part(unique: UniqueIds, table: int) -> slice:
    """Where a table's pairs are."""
    return slice(*unique.table_start_t[table : table + 2].tolist())
