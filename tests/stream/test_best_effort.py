"""Best effort: what goes first, what it costs, how old what waits gets, and that nothing is forgotten, whatever fails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stream.priority import PrioritySet
from pipeline.stream.scored import SteppedIds
from pipeline.stream.waiting import Rows, choose, gather, merge
from pipeline.wire import CommitFrame, HeaderFrame
from pipeline.wire.reading import FrameReader
from tests.stream.effort import EffortLife

seeds = st.integers(0, (1 << 32) - 1)
budgets = st.sampled_from([1.0, 300.0, 3000.0, 1e6])


@given(seeds, budgets, st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_each_row_is_one_of_the_trainers_and_never_goes_back_and_at_last_all_are_there(
    seed: int, budget: float, events: int
) -> None:
    life = EffortLife(seed, budget)
    life.live(events)
    life.finish()


@pytest.mark.long
@given(seeds, budgets, st.integers(0, 300))
@settings(max_examples=2000, deadline=None)
def test_the_same_for_longer(seed: int, budget: float, events: int) -> None:
    life = EffortLife(seed, budget)
    life.live(events)
    life.finish()


ids = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(0, 20)
scores = st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0, float("inf")])
told = st.lists(st.tuples(st.integers(0, 9), st.dictionaries(ids, scores, max_size=12)), min_size=1, max_size=6)


def rows_of(pieces: list[tuple[int, dict[int, float]]]) -> Rows:
    return gather(
        [(np.array(list(one), np.int64), np.array(list(one.values()), np.float32), step) for step, one in pieces]
    )


@given(told, told)
def test_what_waits_is_each_row_once_with_its_changes_added_up_and_its_oldest_step(
    held: list[tuple[int, dict[int, float]]], new: list[tuple[int, dict[int, float]]]
) -> None:
    expected: dict[int, tuple[float, int]] = {}
    for step, one in (*held, *new):
        for row_id, score in one.items():
            so_far, since = expected.get(row_id, (0.0, step))
            expected[row_id] = (so_far + score, min(since, step))
    found = merge(rows_of(held), rows_of(new))
    assert found.ids_n.tolist() == sorted(expected)
    assert list(zip(found.scores_n.tolist(), found.steps_n.tolist(), strict=True)) == [
        expected[row_id] for row_id in sorted(expected)
    ]


@given(told, told, st.floats(0, 300), st.integers(-1, 9))
def test_what_is_due_goes_then_the_most_change_per_byte_while_there_is_room(
    users: list[tuple[int, dict[int, float]]], items: list[tuple[int, dict[int, float]]], room: float, due_step: int
) -> None:
    tables, cost = {"users": rows_of(users), "items": rows_of(items)}, {"users": 10.0, "items": 25.0}
    waiting = [
        (name, *row) for name, rows in tables.items() for row in zip(*(one.tolist() for one in rows), strict=True)
    ]
    due = {(name, row_id) for name, row_id, _, step in waiting if step <= due_step}
    expected, left = set(due), room - sum(cost[name] for name, _ in due)
    others = [(name, row_id, score / cost[name]) for name, row_id, score, step in waiting if step > due_step]
    for name, row_id, _ in sorted(others, key=lambda one: -one[2]):  # sorting is stable: of equal ones the first
        left -= cost[name]
        if left < 0:
            break
        expected.add((name, row_id))
    chosen, due_cost = choose(tables, cost, room, due_step)
    found = {(name, row_id) for name, mask in chosen.items() for row_id in tables[name].ids_n[mask].tolist()}
    assert found == expected
    assert due_cost == sum(cost[name] for name, _ in due)


def test_no_row_waits_longer_than_max_age_and_the_rest_keeps_to_the_budget() -> None:
    life = EffortLife(5, budget=4000.0, max_age_s=1.0)
    after_header, began = life.streamer.counters.bytes_streamed, life.clock()
    largest, unsent = 0, 0
    for _ in range(150):
        before = life.streamer.counters.bytes_streamed
        life.source.train({"users": life.rng.choice(60, 15).tolist(), "items": life.rng.choice(60, 15).tolist()})
        life.clock.pass_s(0.05)
        life.streamer.cut()
        largest = max(largest, life.streamer.counters.bytes_streamed - before)
        unsent = max(unsent, life.streamer.waits.rows)
    counters, seconds = life.streamer.counters, (life.clock() - began) / 1e9
    assert unsent > 20
    assert 0.5 < life.streamer.longest_wait_s <= 1.0
    sent = counters.bytes_streamed - after_header
    assert sent <= 4000 * (seconds + 1) + counters.over_budget_bytes + largest
    assert counters.over_budget_bytes > 0, "the link is too slow for max_age, and says so"
    life.finish()


def test_a_link_that_carries_everything_gets_everything_at_once() -> None:
    life = EffortLife(6, budget=1e9)
    for _ in range(20):
        life.train()
        life.streamer.cut()
        assert life.streamer.waits.rows == 0
        assert life.replica.tables == life.source.state
    assert life.streamer.counters.over_budget_bytes == 0
    life.finish()


def test_the_rows_that_changed_most_go_first_and_frames_say_that_it_is_best_effort() -> None:
    life = EffortLife(7, budget=2000.0, max_age_s=1000.0)
    life.source.train({"users": range(40), "items": ()})
    told = life.streamer.changed._told[0]
    changes = dict(zip(told["users"].tolist(), told.changes("users").tolist(), strict=True))  # type: ignore[attr-defined]
    life.streamer._budget.room = 500.0
    life.streamer.cut()
    sent = set(life.replica.tables["users"])
    assert 5 < len(sent) < 30
    assert min(changes[row_id] for row_id in sent) >= max(changes[row_id] for row_id in changes.keys() - sent)
    reader = FrameReader()
    frames = [reader.read(data) for data in life.transport.frames]
    assert all(frame.best_effort for frame in frames if isinstance(frame, HeaderFrame))
    (commit,) = (frame for frame in frames if isinstance(frame, CommitFrame))
    assert (commit.unsent, commit.oldest_step, commit.oldest_ns) == (40 - len(sent), 1, life.clock())
    assert not commit.ended_k2.size
    life.finish()


def test_what_waits_beyond_its_memory_is_listed_again_and_sent() -> None:
    life = EffortLife(8, budget=1000.0, max_age_s=1000.0)
    life.source.lists_changes = True
    life.streamer._freezer.lists_changes = True
    life.streamer.changed._most_rows = 30
    for _ in range(6):
        life.source.train({"users": life.rng.choice(60, 20).tolist(), "items": ()})
        life.clock.pass_s(0.01)
        life.streamer.cut()
        assert life.streamer.changed.num_waiting <= 30
    assert life.streamer.changed.collapses > 0
    assert life.streamer.counters.over_budget_bytes > 0
    life.finish()


def test_a_set_that_is_compacted_while_a_cut_chooses_leaves_it_alone() -> None:
    waiting = PrioritySet(1 << 20)
    waiting.add(1, 1, SteppedIds({"users": np.arange(4)}, 1))
    with waiting.folding:
        waiting.compact()
        assert waiting.num_waiting == 0
    waiting.compact()
    assert waiting.num_waiting == 4
    assert waiting.num_steps == 1
