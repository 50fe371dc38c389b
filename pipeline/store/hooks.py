"""Hooks: code of a user's own that is called with rows, per table, at three places of a step.

    before_update(table, ids, gradients)   on the lane that updates, before the step's first write
    after_update(table, ids, rows)         there too, when all its rows are written and before anyone else is at the fence
    before_evict(table, ids, rows)         on the lane that reserves, when rows have been chosen to leave L1 and are still there

Hooks of one place run in the order in which they were added, each once per table with rows. What they get is
read-only: a hook reads rows and changes none. It may be kept; ids and gradients then keep the memory of their whole batch.
``after_update`` of a step has run before the step's pins are given back, so before
any of its rows can leave. No lock but the fence (``after_update``) is held, so a hook may call ``Store.fetch_rows``; not so what a load
that is larger than L1 calls in the middle of its step. What a hook
takes its time for is late: the step, or the batch that is being placed.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from cuda.backend import Backend
from cuda.plan import Int32s, Int64s, Matrix, SlotPlan
from pipeline.rows.spec import TableSpec
from pipeline.store.errors import BadHook, HookFailed
from pipeline.store.fetched import FetchedRows, unpacked
from pipeline.store.snapshot import SnapshotRows
from pipeline.store.tier import RowBytes

if TYPE_CHECKING:
    import numpy.typing as npt

HookPoint = Literal["before_update", "after_update", "before_evict"]
OnError = Literal["stop", "skip"]
POINTS: Final[dict[str, str]] = {
    "before_update": "(table, ids, gradients)",
    "after_update": "(table, ids, rows)",
    "before_evict": "(table, ids, rows)",
}


@dataclass
class Hook:
    """One hook at one place, and what became of its calls."""

    name: str
    at: HookPoint
    call: Callable[[str, Int64s, Any], Any]
    tables: frozenset[int]
    on_error: OnError
    calls: int = 0
    skipped: int = 0
    """Calls that raised, where ``on_error`` is skip."""
    seconds: float = 0.0
    first_error: str | None = None

    def run(self, table: str, step: int, ids_u: Int64s, values: Any) -> None:
        """Raises HookFailed, unless what the hook raises is to be skipped."""
        began = time.perf_counter()
        self.calls += 1
        try:
            self.call(table, ids_u, values)
        except Exception as error:
            failed = HookFailed(self.name, self.at, table, step, error)
            if self.on_error == "stop":
                raise failed from error
            self.skipped += 1
            self.first_error = self.first_error or str(failed)
        finally:
            self.seconds += time.perf_counter() - began

    def stats(self) -> dict[str, Any]:
        counted = {"calls": self.calls, "skipped": self.skipped, "seconds": self.seconds}
        return {"name": self.name, "at": self.at, **counted, "first_error": self.first_error}


class Hooks:
    """All hooks of a store, by place, in order. ``specs`` are in the backend's order."""

    def __init__(self, specs: Sequence[TableSpec], backend: Backend) -> None:
        self._specs, self._backend = specs, backend
        self._all: list[Hook] = []
        self.before_update: tuple[Hook, ...] = ()
        self.after_update: tuple[Hook, ...] = ()
        self.before_evict: tuple[Hook, ...] = ()

    def add(self, at: str, call: Any, tables: Sequence[str] | None, on_error: str, name: str | None) -> None:
        """Behind those that are there. Raises BadHook."""
        name = name or getattr(call, "__qualname__", None) or type(call).__qualname__
        check_point(name, at)
        check_signature(name, at, call)
        if on_error not in ("stop", "skip"):
            raise BadHook(name, f"on_error is {on_error!r}; it is stop or skip")
        known = [spec.name for spec in self._specs]
        numbers = frozenset(range(len(known)) if tables is None else map(known.index, checked(name, tables, known)))
        hook = Hook(name, at, call, numbers, on_error)  # type: ignore[arg-type]
        self._all.append(hook)
        setattr(self, at, (*getattr(self, at), hook))

    def run_before_update(self, step: int, plan: SlotPlan, grads: Sequence[Matrix | None]) -> None:
        """With the gradient of each distinct row, as the fused update sums it where no ``max_gradient`` limits it: float32 [u, dim]."""
        sums_ud = self._backend.sum_gradients(plan, grads)
        starts_t = plan.unique.table_start_t.tolist()
        for number in self._wanted(self.before_update, np.diff(plan.unique.table_start_t) > 0):
            part = slice(starts_t[number], starts_t[number + 1])
            gradients = _kept(sums_ud[part, : self._specs[number].dim])
            self._run(self.before_update, number, step, plan.unique.ids_u[part], gradients)

    def run_after_update(self, step: int, plan: SlotPlan) -> None:
        """With the rows as the step left them."""
        starts_t = plan.unique.table_start_t.tolist()
        for number in self._wanted(self.after_update, np.diff(plan.unique.table_start_t) > 0):
            part = slice(starts_t[number], starts_t[number + 1])
            ids_u = plan.unique.ids_u[part]
            rows = self._rows(number, step, ids_u, *self._backend.read_rows(plan.slots_u[part]))
            self._run(self.after_update, number, step, ids_u, rows)

    def leaving(self, slots_m: Int32s) -> LeavingRows:
        """Copies of the rows in ``slots_m``, which nobody writes."""
        return LeavingRows(*self._backend.pairs(slots_m), *self._backend.read_rows(slots_m))

    def run_before_evict(self, step: int, leaving: LeavingRows) -> None:
        """``step`` is that of the batch which takes their place."""
        there_t = np.bincount(leaving.tables_m, minlength=len(self._specs)) > 0
        for number in self._wanted(self.before_evict, there_t):
            own = np.flatnonzero(leaving.tables_m == number)
            ids_u = leaving.ids_m[own]
            rows = self._rows(number, step, ids_u, leaving.rows_mb[own], leaving.versions_m[own])
            self._run(self.before_evict, number, step, ids_u, rows)

    def _wanted(self, hooks: Sequence[Hook], there_t: Any) -> list[int]:
        """Numbers of the tables that have rows and are of interest to a hook."""
        wanted = frozenset[int]().union(*(hook.tables for hook in hooks))
        return [number for number in np.flatnonzero(there_t).tolist() if number in wanted]

    def _rows(self, number: int, step: int, ids_u: Int64s, rows_ub: RowBytes, versions_u: Int64s) -> FetchedRows:
        spec = self._specs[number]
        packed = SnapshotRows(rows_ub, versions_u, versions_u > 0)
        rows = unpacked(spec.name, spec.layout, step, _kept(ids_u), packed, states=True)
        for array in (*rows.columns.values(), rows.versions_n2, rows.updated_n):
            array.flags.writeable = False
        return rows

    def _run(self, hooks: Sequence[Hook], number: int, step: int, ids_u: Int64s, values: Any) -> None:
        ids_u = _kept(ids_u)
        for hook in hooks:
            if number in hook.tables:
                hook.run(self._specs[number].name, step, ids_u, values)

    @property
    def skipped(self) -> int:
        return sum(hook.skipped for hook in self._all)

    def stats(self) -> list[dict[str, Any]]:
        """What became of each, in the order in which they were added."""
        return [hook.stats() for hook in self._all]


@dataclass(frozen=True, slots=True)
class LeavingRows:
    """Rows that leave L1. Shapes [M]."""

    tables_m: Int32s
    ids_m: Int64s
    rows_mb: RowBytes
    versions_m: Int64s


def check_point(name: str, at: str) -> None:
    """Raises BadHook."""
    if at not in POINTS:
        raise BadHook(name, f"it is to run at {at!r}; hooks run at {', '.join(POINTS)}")


def checked(name: str, tables: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """``tables``. Raises BadHook for one that is not known."""
    unknown = [table for table in tables if table not in known]
    if unknown:
        raise BadHook(name, f"no table {unknown[0]!r}; the tables are {list(known)}")
    return tables


def check_signature(name: str, at: str, call: Any, bound: int = 0) -> None:
    """Raises BadHook unless ``call`` takes ``bound`` arguments and then three by position, and is no coroutine."""
    wanted = f"a hook is called as {at}{POINTS[at]}"
    if not callable(call):
        raise BadHook(name, f"a {type(call).__name__} cannot be called; {wanted}")
    if inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None)):  # noqa: B004 - its kind, not whether it can be called
        raise BadHook(name, f"it is async, and hooks run on a lane, not on the event loop; {wanted}")
    try:
        signature = inspect.signature(call)
    except ValueError:  # some functions of C tell nothing
        return
    try:
        signature.bind(*[None] * (bound + 3))
    except TypeError as error:
        raise BadHook(name, f"its signature is {signature} ({error}); {wanted}") from None


def _kept(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same memory, read-only. What a batch is made of is not written again while somebody holds it."""
    view = array.view()
    view.flags.writeable = False
    return view
