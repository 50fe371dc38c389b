"""The changed set loses nothing, whoever adds, takes, puts back and compacts, and is bounded by distinct rows."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.stream import Changed, ChangedSet
from pipeline.stream import changed as changed_module
from pipeline.stream.merging import distinct_ids


def ids(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def as_sets(changed: Changed) -> dict[str, set[int]]:
    sets = {table: set(np.concatenate(pieces).tolist()) for table, pieces in changed.by_table().items()}
    return {table: held for table, held in sets.items() if held}


class ChangedMachine(RuleBasedStateMachine):
    """Beside a plain dict of sets and a list of steps."""

    limit_bytes = 256 << 20

    def __init__(self) -> None:
        super().__init__()
        self.real = ChangedSet(self.limit_bytes)
        self.held: dict[str, set[int]] = {}
        self.steps: list[list[int]] = []
        self.taken: list[tuple[Changed, dict[str, set[int]], list[list[int]]]] = []
        self.step = 0

    @rule(added=st.dictionaries(st.sampled_from("abc"), st.sets(st.integers(-3, 9) | st.just(-(1 << 63)))))
    def add(self, added: dict[str, set[int]]) -> None:
        self.step += 1
        self.real.add(self.step, self.step * 10, {table: ids(*sorted(some)) for table, some in added.items()})
        for table, some in added.items():
            self.held.setdefault(table, set()).update(some)
        self.steps.append([self.step, self.step * 10])
        self.note_collapse()

    def note_collapse(self) -> None:
        """The ends of so few steps are all remembered."""
        del self.steps[: len(self.steps) - self.real.num_steps]

    @rule(table=st.sampled_from("abc"), some=st.sets(st.integers(-3, 9)))
    def end(self, table: str, some: set[int]) -> None:
        self.real.add_ended({table: ids(*sorted(some))})
        self.held.setdefault(table, set()).update(some)

    @rule()
    def compact(self) -> None:
        self.real.compact()

    @rule()
    def take(self) -> None:
        taken = self.real.take()
        self.held = {table: some for table, some in self.held.items() if some}
        assert as_sets(taken) == ({} if taken.collapsed else self.held)
        assert taken.ended_k2.tolist() == self.steps
        self.taken.append((taken, self.held, self.steps))
        self.held, self.steps = {}, []

    @precondition(lambda self: self.taken)
    @rule(merged=st.booleans())
    def put_back(self, merged: bool) -> None:
        """The newest first, as a streamer does that has one cut at a time."""
        taken, held, steps = self.taken.pop()
        self.forget_the_others()
        self.real.put_back(self.real.distinct(taken) if merged else taken)
        for table, some in held.items():
            self.held.setdefault(table, set()).update(some)
        self.steps = steps + self.steps
        self.note_collapse()

    def forget_the_others(self) -> None:
        for taken, _, _ in self.taken:
            self.real.published(taken)
        self.taken.clear()

    @precondition(lambda self: self.taken)
    @rule(merged=st.booleans())
    def publish(self, merged: bool) -> None:
        taken, _, _ = self.taken.pop()
        self.real.published(self.real.distinct(taken) if merged else taken)

    @invariant()
    def counts_agree(self) -> None:
        assert self.real.num_steps == len(self.steps)
        assert self.real.last_step == self.step
        assert self.real.count >= sum(len(some) for some in self.held.values())

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.real.nbytes <= self.limit_bytes * 9 // 16, "half of it, and the ends of steps"
        assert not self.real.collapses or self.limit_bytes < 1 << 20


TestChangedSet = ChangedMachine.TestCase
TestChangedSet.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


class SmallMachine(ChangedMachine):
    """With room for a few arrays: it collapses now and then."""

    limit_bytes = 3000


TestSmallChangedSet = SmallMachine.TestCase
TestSmallChangedSet.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_distinct_ids_are_each_named_once_and_rise() -> None:
    pieces = {"empty": [ids()], "t": [ids(3, -1), ids(), ids(3, (1 << 63) - 1, -(1 << 63)), ids(-1)], "u": [ids(3, 3)]}
    found = distinct_ids(pieces)
    named = {table: ids_n.tolist() for table, ids_n in found.items()}
    assert named == {"t": [-(1 << 63), -1, 3, (1 << 63) - 1], "u": [3]}
    assert all(ids_n.base is None for ids_n in found.values()), "nothing else is kept alive"
    assert distinct_ids({}) == {}


def test_adding_keeps_references_and_writes_nothing() -> None:
    mine = ids(5, 1, 3)
    mine.flags.writeable = False
    changed = ChangedSet()
    changed.add(1, 10, {"t": mine})
    assert changed.take().by_table()["t"][0] is mine


def test_what_a_step_updated_is_not_looked_at_where_training_waits() -> None:
    class Later(dict[str, npt.NDArray[np.int64]]):
        asked = 0

        def items(self) -> Any:
            self.asked += 1
            return super().items()

        values = items

    later, changed = Later({"t": ids(5, 1)}), ChangedSet()
    changed.add(1, 10, later, 2)
    taken = changed.take()
    assert later.asked == 0
    assert changed.distinct(taken).pieces["t"][0].tolist() == [1, 5]


@given(st.lists(st.sampled_from(["add", "compact", "put back", "distinct", "put back distinct"]), max_size=30))
def test_the_rows_of_each_step_are_counted_once(moves: list[str]) -> None:
    changed, told, step = ChangedSet(), 0, 0
    for move in [*moves, "distinct"]:
        if move == "add":
            step, told = step + 1, told + 3
            changed.add(step, step, {"t": ids(1, 2, step + 2)})
        elif move == "compact":
            changed.compact()
        else:
            taken = changed.take()
            taken = changed.distinct(taken) if "distinct" in move else taken
            if "put back" in move:
                changed.put_back(taken)
    assert changed.rows_told["t"] == told


def test_memory_is_bounded_by_distinct_rows_although_nobody_takes_or_compacts() -> None:
    rng = np.random.default_rng(1)
    changed, distinct = ChangedSet(), 50_000
    bound = 8 * 4 * (2 * (distinct + 16) + changed_module.SMALL) + 8 * 4096
    for step in range(1, 1500):
        changed.add(step, step, {"t": rng.integers(0, distinct, 4096)})
        assert changed.nbytes - 16 * changed.num_steps <= bound
    assert changed.inline_compactions > 5
    assert len(changed.distinct(changed.take()).pieces["t"][0]) == distinct


def test_compaction_on_a_lane_leaves_none_to_the_fence() -> None:
    rng = np.random.default_rng(2)
    changed = ChangedSet()
    for step in range(1, 1500):
        changed.add(step, step, {"t": rng.integers(0, 1000, 4096)})
        if changed.crowded:
            changed.compact()
    assert changed.inline_compactions == 0
    assert changed.count < 10 * changed_module.SMALL


def test_the_ends_of_steps_are_bounded_and_the_forgotten_ones_counted() -> None:
    changed, limit = ChangedSet(), changed_module.MAX_STEPS
    for step in range(1, limit + 11):
        changed.add(step, step, {})
    assert changed.untimed_steps == limit + 1 - limit // 2
    ended = changed.take().ended_k2
    assert len(ended) + changed.untimed_steps == limit + 10
    assert ended[-1].tolist() == [limit + 10, limit + 10]


def test_nothing_is_lost_between_threads_that_add_take_put_back_and_compact() -> None:
    changed, got, done = ChangedSet(), [], threading.Event()

    def compact() -> None:
        while not done.is_set():
            changed.compact()

    def take() -> None:
        turn = 0
        while not done.is_set():
            taken = changed.take()
            turn += 1
            if turn % 2:
                changed.put_back(taken)
            else:
                got.append(taken)

    threads = [threading.Thread(target=compact), threading.Thread(target=take)]
    for thread in threads:
        thread.start()
    for step in range(1, 3000):
        changed.add(step, step, {"t": np.arange(step * 10, step * 10 + 10)})
    done.set()
    for thread in threads:
        thread.join()
    got.append(changed.take())
    assert sorted(k for taken in got for k in as_sets(taken).get("t", ())) == list(range(10, 30_000))
    assert sorted(step for taken in got for step in taken.ended_k2[:, 0].tolist()) == list(range(1, 3000))
