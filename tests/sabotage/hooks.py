"""Small ways to call hooks with the wrong rows, at the wrong time or not at all. The walk of ``tests.store.hooked`` has to catch each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from cuda.plan import Int32s, SlotPlan
from pipeline.store import Store
from pipeline.store.hooks import Hook, Hooks, LeavingRows


@contextmanager
def show_rows_as_they_were_before_the_step() -> Iterator[None]:
    """``after_update`` runs ahead of the write."""
    update, run = Store.update, Hooks.run_after_update

    def early(self: Store, reservation: Any, grads: Any, **named: Any) -> None:
        run(self.hooks, reservation.step, reservation.plan)
        update(self, reservation, grads, **named)

    with patch.object(Store, "update", early), patch.object(Hooks, "run_after_update", lambda *_: None):
        yield


@contextmanager
def run_the_hooks_of_a_step_when_the_next_one_ends() -> Iterator[None]:
    """So rows of it may leave before."""
    run, late = Hooks.run_after_update, list[tuple[int, SlotPlan]]()

    def postponed(self: Hooks, step: int, plan: SlotPlan) -> None:
        waiting, late[:] = list(late), [(step, plan)]
        for one in waiting:
            run(self, *one)

    with patch.object(Hooks, "run_after_update", postponed):
        yield


@contextmanager
def tell_of_rows_that_have_left_already() -> Iterator[None]:
    """``before_evict`` runs when the next rows have to leave."""
    run, late = Hooks.run_before_evict, list[tuple[int, LeavingRows]]()

    def postponed(self: Hooks, step: int, leaving: LeavingRows) -> None:
        waiting, late[:] = list(late), [(step, leaving)]
        for one in waiting:
            run(self, *one)

    with patch.object(Hooks, "run_before_evict", postponed):
        yield


@contextmanager
def tell_of_all_but_one_of_the_rows_that_leave() -> Iterator[None]:
    leaving = Hooks.leaving

    def short(self: Hooks, slots_m: Int32s) -> LeavingRows:
        return leaving(self, slots_m[1:])

    with patch.object(Hooks, "leaving", short):
        yield


@contextmanager
def tell_twice_of_a_row_that_leaves() -> Iterator[None]:
    leaving = Hooks.leaving

    def twice(self: Hooks, slots_m: Int32s) -> LeavingRows:
        return leaving(self, np.concatenate([slots_m, slots_m[:1]]))

    with patch.object(Hooks, "leaving", twice):
        yield


@contextmanager
def show_gradients_without_those_of_a_feature() -> Iterator[None]:
    run = Hooks.run_before_update

    def without(self: Hooks, step: int, plan: SlotPlan, grads: Sequence[Any]) -> None:
        run(self, step, plan, [None, *grads[1:]])

    with patch.object(Hooks, "run_before_update", without):
        yield


@contextmanager
def forget_the_hooks_of_a_table() -> Iterator[None]:
    wanted = Hooks._wanted

    with patch.object(Hooks, "_wanted", lambda self, *arguments: wanted(self, *arguments)[:2]):
        yield


@contextmanager
def run_hooks_in_another_order() -> Iterator[None]:
    run = Hooks._run

    def reversed_run(self: Hooks, hooks: Sequence[Hook], *arguments: Any) -> None:
        run(self, hooks[::-1], *arguments)

    with patch.object(Hooks, "_run", reversed_run):
        yield


@contextmanager
def swallow_what_a_hook_raises() -> Iterator[None]:
    honest = Hook.run

    def deaf(self: Hook, *arguments: Any) -> None:
        self.on_error = "skip"
        honest(self, *arguments)

    with patch.object(Hook, "run", deaf):
        yield


SABOTAGES: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    sabotage.__name__: sabotage
    for sabotage in (
        show_rows_as_they_were_before_the_step,
        run_the_hooks_of_a_step_when_the_next_one_ends,
        tell_of_rows_that_have_left_already,
        tell_of_all_but_one_of_the_rows_that_leave,
        tell_twice_of_a_row_that_leaves,
        show_gradients_without_those_of_a_feature,
        forget_the_hooks_of_a_table,
        run_hooks_in_another_order,
        swallow_what_a_hook_raises,
    )
}
