"""Sabotages of best effort: each takes one thing away that keeps a row from being forgotten, going back or waiting for ever."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from pipeline.stream import waiting
from pipeline.stream.best_effort import BestEffortStreamer
from pipeline.stream.priority import Chosen, PrioritySet
from pipeline.stream.streamer import RowStreamer
from pipeline.stream.taken import Waits
from tests.sabotage.caught import Sabotage


def _forget_what_a_failed_cut_held() -> AbstractContextManager[Any]:
    put_back = PrioritySet.put_back

    def forget(self: PrioritySet, changed: Any) -> None:
        if not isinstance(changed, Chosen):
            put_back(self, changed)

    return patch.object(PrioritySet, "put_back", forget)


def _forget_what_was_not_chosen() -> AbstractContextManager[Any]:
    choose = PrioritySet.choose

    def forget(self: PrioritySet, *args: Any, **kwargs: Any) -> Chosen:
        chosen = choose(self, *args, **kwargs)
        self._waiting = {}
        return chosen

    return patch.object(PrioritySet, "choose", forget)


def _keep_the_newest_step_of_a_row() -> AbstractContextManager[Any]:
    """So a row that changes in every step never gets old."""
    return patch("pipeline.stream.waiting.np.minimum", np.maximum)


def _compact_while_a_cut_chooses() -> AbstractContextManager[Any]:
    """What changed behind the cut's step is taken for what it carries."""
    visit = BestEffortStreamer._visit

    def train_first(self: BestEffortStreamer, freeze: Any) -> Any:
        def freeze_and_train(step: int) -> Any:
            frozen = freeze(step)
            if step % 3 == 0:
                source: Any = self._source
                source.train({"users": [1, 2, 3], "items": [1, 2]})
                changed = self.changed.take()
                told = (*frozen.changed.told, *changed.told)
                ended_k2 = np.concatenate([frozen.changed.ended_k2, changed.ended_k2])
                frozen.changed = replace(frozen.changed, told=told, ended_k2=ended_k2)
            return frozen

        return visit(self, freeze_and_train)

    return patch.object(BestEffortStreamer, "_visit", train_first)


def _say_that_nothing_waits() -> AbstractContextManager[Any]:
    choose = PrioritySet.choose

    def silent(self: PrioritySet, *args: Any, **kwargs: Any) -> Chosen:
        return replace(choose(self, *args, **kwargs), waits=Waits(0, None, None))

    return patch.object(PrioritySet, "choose", silent)


def _tell_the_end_of_steps_of_which_rows_wait() -> AbstractContextManager[Any]:
    choose = PrioritySet.choose

    def early(self: PrioritySet, step: int, *args: Any, **kwargs: Any) -> Chosen:
        return replace(choose(self, step, *args, **kwargs), ended_k2=self._ends)

    return patch.object(PrioritySet, "choose", early)


def _drain_to_the_last_step_only() -> AbstractContextManager[Any]:
    """Not until nothing waits."""
    lacks = RowStreamer._lacks

    def drain(self: BestEffortStreamer) -> None:
        RowStreamer.drain(self)

    def only_steps(self: RowStreamer, step: int) -> bool:
        with patch.object(PrioritySet, "num_waiting", 0):
            return lacks(self, step)

    return patch.multiple(BestEffortStreamer, drain=drain, _lacks=only_steps)


def _let_rows_wait_for_ever() -> AbstractContextManager[Any]:
    return patch.object(BestEffortStreamer, "_patience_ns", lambda _self, _now: 1 << 62)


def _send_those_that_changed_least_first() -> AbstractContextManager[Any]:
    best = waiting._best
    return patch.object(
        waiting, "_best", lambda worth_k, most: best(np.where(worth_k < 0, -1, 1 / (1 + worth_k)), most)
    )


SABOTAGES: dict[str, Sabotage] = {
    "forget what a failed cut held": _forget_what_a_failed_cut_held,
    "forget what was not chosen": _forget_what_was_not_chosen,
    "keep the newest step of a row": _keep_the_newest_step_of_a_row,
    "compact while a cut chooses": _compact_while_a_cut_chooses,
    "say that nothing waits": _say_that_nothing_waits,
    "tell the end of steps of which rows wait": _tell_the_end_of_steps_of_which_rows_wait,
    "drain to the last step only": _drain_to_the_last_step_only,
    "let rows wait for ever": _let_rows_wait_for_ever,
    "send those that changed least first": _send_those_that_changed_least_first,
}
"""Name to a context manager that breaks it."""
