"""Rows that wait to be sent: each once, with how much it has changed and since which step. Pure functions on sorted arrays.

Legend: n rows of a table that wait; m of what comes to them; k rows of all tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.stream.merging import Int64s
from pipeline.stream.scored import Float32s

Bools = npt.NDArray[np.bool_]
ROW_BYTES = 20


class Rows(NamedTuple):
    """Of one table, ids distinct and rising."""

    ids_n: Int64s
    scores_n: Float32s
    """The sum of its relative changes since it was last sent; infinity: before all others."""
    steps_n: Int64s
    """The step of the oldest change that was not sent."""

    def some(self, chosen_n: Bools) -> Rows:
        return Rows(self.ids_n[chosen_n], self.scores_n[chosen_n], self.steps_n[chosen_n])


def gather(pieces: Sequence[tuple[Int64s, Float32s, int]]) -> Rows:
    """From (ids, changes, step), at least one: ids may repeat."""
    ids_m = np.concatenate([ids for ids, _, _ in pieces])
    steps_m = np.repeat(np.array([step for _, _, step in pieces], np.int64), [len(ids) for ids, _, _ in pieces])
    order = np.argsort(ids_m, kind="stable")
    ids_m = ids_m[order]
    is_first = np.ones(len(ids_m), np.bool_)
    is_first[1:] = ids_m[1:] != ids_m[:-1]
    starts = np.flatnonzero(is_first)
    scores_m = np.concatenate([changes for _, changes, _ in pieces])[order]
    if not len(ids_m):
        return Rows(ids_m, scores_m, steps_m)
    return Rows(ids_m[starts], np.add.reduceat(scores_m, starts), np.minimum.reduceat(steps_m[order], starts))


def merge(held: Rows, new: Rows) -> Rows:
    """Scores are added, of two steps the older stays. ``held`` is used up. Beside both it takes a column's memory at a time."""
    places = np.searchsorted(held.ids_n, new.ids_n)
    there = np.zeros(len(places), np.bool_)
    within = places < len(held.ids_n)
    there[within] = held.ids_n[places[within]] == new.ids_n[within]
    at = places[there]
    held.scores_n[at] += new.scores_n[there]
    held.steps_n[at] = np.minimum(held.steps_n[at], new.steps_n[there])
    if there.all():
        return held
    places, absent = places[~there], new.some(~there)
    return Rows(
        np.insert(held.ids_n, places, absent.ids_n),
        np.insert(held.scores_n, places, absent.scores_n),
        np.insert(held.steps_n, places, absent.steps_n),
    )


def choose(
    tables: Mapping[str, Rows], cost: Mapping[str, float], room: float, due_step: int
) -> tuple[dict[str, Bools], float]:
    """Which rows go: those that wait since ``due_step`` or before, whatever they cost; then, of the others, those with most change per
    byte, until ``room`` bytes are full. ``cost``: bytes of a row, by table. Returns the choice, and what the former cost.
    """
    chosen = {name: rows.steps_n <= due_step for name, rows in tables.items()}
    due = sum(float(np.count_nonzero(chosen_n)) * cost[name] for name, chosen_n in chosen.items())
    left = room - due
    total = sum(map(len, chosen.values()))
    if not total or left < min(cost[name] for name in tables):
        return chosen, due
    worth_k = np.concatenate(
        [
            np.where(chosen[name], np.float32(-1), rows.scores_n / np.float32(cost[name]))
            for name, rows in tables.items()
        ]
    )
    starts = np.cumsum([0, *(len(rows.ids_n) for rows in tables.values())])
    costs = np.array([cost[name] for name in tables])
    best = _best(worth_k, int(left // costs.min()))
    spent = np.cumsum(costs[np.searchsorted(starts, best, side="right") - 1])
    best = best[: np.searchsorted(spent, left, side="right")]
    for number, name in enumerate(tables):
        of_table = best[(best >= starts[number]) & (best < starts[number + 1])]
        chosen[name][of_table - starts[number]] = True
    return chosen, due


def _best(worth_k: Float32s, most: int) -> Int64s:
    """Positions of the numbers that are not negative: the ``most`` largest at least, the largest first, of equal ones the first."""
    least = np.float32(0)
    if most < len(worth_k):
        least = max(least, np.partition(worth_k, len(worth_k) - most)[len(worth_k) - most])
    found = np.flatnonzero(worth_k >= least)
    return found[np.argsort(-worth_k[found], kind="stable")]
