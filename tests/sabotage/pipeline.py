"""Small ways to break the staged pipeline as a whole. Each must change a bit somewhere, or stop the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from cuda.host import HostBackend
from pipeline.rows.initial import initial_rows
from pipeline.store import DramTier, Store
from pipeline.store import below as below_module
from pipeline.store import residency as residency_module
from pipeline.stream import RowStreamer
from stages.lookup import Lookup
from stages.update import Update
from tests.sabotage.caught import Sabotage


@contextmanager
def _end_the_stream_without_the_last_batch() -> Iterator[None]:
    """Nor is it in a cut before the end, into which it may come by chance."""
    cut = RowStreamer.cut

    def early(self: RowStreamer) -> Any:
        return cut(self) if self.committed_step < 10 else None

    with patch.object(RowStreamer, "cut", early), patch.object(RowStreamer, "drain", lambda _self: None):
        yield


@contextmanager
def _look_up_rows_before_they_are_read() -> Iterator[None]:
    """Rows are read only when their batch is given back, and nobody minds."""
    with (
        patch.object(Store, "read_misses", lambda _self, _reservation: None),
        patch.object(residency_module.Residency, "check_readable", lambda _self, _reservation: None),
        patch.object(residency_module.Residency, "mark_written", lambda _self, _reservation: None),
    ):
        yield


@contextmanager
def _forget_states_when_a_row_leaves_l1() -> Iterator[None]:
    put = DramTier.put

    def put_without_states(self: Any, table: str, ids_n: Any, rows_nb: Any, versions_n: Any) -> None:
        layout = self._table(table).spec.layout
        rows_nb = rows_nb.copy()
        for column in layout.states:
            layout.view(rows_nb, column.name)[:] = 0
        put(self, table, ids_n, rows_nb, versions_n)

    with (
        patch.object(DramTier, "put", put_without_states),
        patch.object(HostBackend, "row_places", lambda *_: None),  # rows are put, not moved
    ):
        yield


@contextmanager
def _sum_gradients_in_slot_order() -> Iterator[None]:
    """The occurrences of a row come in an order that depends on where the row lies in L1."""
    reserve = Store.try_reserve

    def reserve_and_reorder(self: Any, step: int, batch: Any, unique: Any) -> Any:
        reservation = reserve(self, step, batch, unique)
        if reservation is None:
            return None
        occurrences = unique.occurrences_n.copy()
        for u in np.flatnonzero(reservation.plan.slots_u % 2):
            start, stop = unique.occurrence_start_u[u], unique.occurrence_start_u[u + 1]
            occurrences[start:stop] = occurrences[start:stop][::-1]
        plan = replace(reservation.plan, unique=replace(unique, occurrences_n=occurrences))
        reservation.plan = plan
        return reservation

    with patch.object(Store, "try_reserve", reserve_and_reorder):
        yield


@contextmanager
def _make_initial_rows_in_order_of_arrival() -> Iterator[None]:
    """A generator that is drawn from, instead of a function of the id."""
    make, rng = initial_rows, np.random.default_rng(1)

    def drawn(spec: Any, ids_n: Any) -> Any:
        rows_nb = make(spec, ids_n)
        spec.layout.view(rows_nb, "weight")[:] = rng.uniform(-0.01, 0.01, (len(ids_n), spec.dim)).astype(np.float32)
        return rows_nb

    with patch.object(below_module, "initial_rows", drawn):
        yield


@contextmanager
def _drop_the_pins_with_the_lookup() -> Iterator[None]:
    work = Lookup.work

    def work_and_release(self: Any, item: Any) -> Any:
        looked_up = work(self, item)
        if item.reservation is not None:
            self._store.release(item.reservation)
        return looked_up

    with patch.object(Lookup, "work", work_and_release):
        yield


@contextmanager
def _leave_dirty_rows_behind() -> Iterator[None]:
    """A row that leaves L1 is not written back."""
    with patch.object(
        residency_module.Residency, "_write_back", lambda self, slots_m: self.machine.cleaned(slots_m) and None
    ):
        yield


@contextmanager
def _skip_the_update_of_the_last_row() -> Iterator[None]:
    update = HostBackend.update

    def update_all_but_one(self: Any, plan: Any, grads_f: Any, rules_t: Any, version: int) -> Any:
        slots_u = plan.slots_u[-1:]
        rows, versions = self.read_rows(slots_u)
        bad_t = update(self, plan, grads_f, rules_t, version)
        if plan.unique.count % 3 == 0:
            self.write_rows(slots_u, rows, versions)
        return bad_t

    with patch.object(HostBackend, "update", update_all_but_one):
        yield


@contextmanager
def _step_the_dense_weights_outside_the_fence() -> Iterator[None]:
    """The dense step of a batch runs before its rows are written, and again for good measure every seventh step."""
    work = Update.work

    def work_twice(self: Any, item: Any) -> Any:
        if item.step % 7 == 0 and item.reservation is not None:
            self._optimizer.step(item.step)
        return work(self, item)

    with patch.object(Update, "work", work_twice):
        yield


SABOTAGES: dict[str, Sabotage] = {
    function.__name__.strip("_").replace("_", " "): function
    for function in (
        _end_the_stream_without_the_last_batch,
        _look_up_rows_before_they_are_read,
        _forget_states_when_a_row_leaves_l1,
        _sum_gradients_in_slot_order,
        _make_initial_rows_in_order_of_arrival,
        _drop_the_pins_with_the_lookup,
        _leave_dirty_rows_behind,
        _skip_the_update_of_the_last_row,
        _step_the_dense_weights_outside_the_fence,
    )
}
