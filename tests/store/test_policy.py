"""Which rows leave first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.store import PolicyNotFound, SlotUse, StoreOptions, victims
from pipeline.store.policy import FAR_STEPS, MOST_COUNTED, POLICIES, USE_STEPS, find_policy
from pipeline.store.slot_kernels import select_lowest
from pipeline.store.slots import SlotMachine


class HighestSlotFirst:
    """A user's policy."""

    needs_expect = False

    def scores(self, use: SlotUse, now: int) -> npt.NDArray[np.int64]:  # noqa: ARG002
        return -np.arange(use.uses_s.shape[0])


class NoPolicy:
    pass


def filled(policy: str, uses: list[list[int]], num_slots: int) -> SlotMachine:
    """A machine whose slots were used, step by step, as ``uses`` says; all slots hold rows and none is pinned."""
    machine = SlotMachine(num_slots, find_policy(policy))
    decision = machine.decide(np.full(num_slots, -1, dtype=np.int32), 1)
    assert decision is not None
    machine.commit(decision)
    machine.loaded(decision.slots_m)
    machine.unpin(decision.slots_u)
    for step, slots in enumerate(uses, start=2):
        decision = machine.decide(np.array(slots, dtype=np.int32), step)
        assert decision is not None
        machine.commit(decision)
        machine.unpin(decision.slots_u)
    return machine


def leaving(machine: SlotMachine, count: int) -> list[int]:
    decision = machine.decide(np.full(count, -1, dtype=np.int32), machine.now + 1)
    assert decision is not None
    return [int(slot) for slot in decision.slots_m]


def test_lru_lets_the_longest_unused_leave_first() -> None:
    machine = filled("lru", [[3], [1], [3, 0], [2]], 4)
    assert leaving(machine, 4) == [1, 0, 3, 2]


def test_lfu_lets_the_least_used_leave_first_and_the_older_of_equals() -> None:
    machine = filled("lfu", [[0], [0], [1], [2]], 4)
    assert leaving(machine, 4) == [3, 1, 2, 0]


def test_lookahead_keeps_rows_of_queued_batches_to_the_last() -> None:
    machine = filled("lookahead", [[0], [1], [2], [3]], 4)
    machine.expect(np.array([0, -1], dtype=np.int32), 7)
    machine.expect(np.array([1], dtype=np.int32), 9)
    assert leaving(machine, 4) == [2, 3, 1, 0]


def test_lookahead_lets_a_row_that_came_once_go_before_one_that_comes_often() -> None:
    machine = filled("lookahead", [[0], [0], [1], *[[] for _ in range(USE_STEPS - 3)], [2]], 4)
    assert leaving(machine, 4) == [3, 1, 2, 0]


def test_lookahead_scores_are_those_of_its_rule() -> None:
    random, now = np.random.default_rng(), 5000
    last, uses = random.integers(0, now, 1000), random.integers(0, 30, 1000).astype(np.int32)
    following = random.choice([0, now - 3, now, now + 1, now + 7, now + 2 * FAR_STEPS], 1000)
    scores = find_policy("lookahead").scores(SlotUse(last, uses, following), now)
    rest = last + USE_STEPS * np.clip(uses.astype(np.int64) - 1, 0, MOST_COUNTED)
    ahead = np.minimum(following - now, FAR_STEPS)
    assert scores[ahead <= 0].tolist() == rest[ahead <= 0].tolist()
    assert np.array_equal(np.argsort(scores[ahead > 0], kind="stable"), np.argsort(-ahead[ahead > 0], kind="stable"))
    assert scores[ahead > 0].min() > rest.max()


@pytest.mark.parametrize("span", [10, (1 << 16) - 1, 1 << 16, 1 << 62])
def test_victims_come_in_order_of_score_whatever_their_span(span: int) -> None:
    random = np.random.default_rng()
    scores = random.integers(-span // 2, span // 2, 3000)
    scores[:2] = -(span // 2), -(span // 2) + span
    assert np.array_equal(victims._order(scores), np.argsort(scores, kind="stable"))


def test_lookahead_forgets_a_need_that_has_passed() -> None:
    machine = filled("lookahead", [[0], [1], [2], [3]], 4)
    machine.expect(np.array([0], dtype=np.int32), machine.now)
    assert leaving(machine, 1) == [0]


def test_a_row_told_of_after_the_scan_is_passed_over() -> None:
    machine = filled("lookahead", [[0], [1], [2], [3]], 4)
    assert leaving(machine, 1) == [0]
    machine.expect(np.array([0], dtype=np.int32), machine.now + 2)
    assert leaving(machine, 1) == [1]


def test_a_row_used_after_the_scan_is_passed_over() -> None:
    machine = filled("lru", [[0], [1], [2], [3]], 4)
    assert leaving(machine, 1) == [0]
    decision = machine.decide(np.array([0], dtype=np.int32), machine.now + 1)
    assert decision is not None
    machine.commit(decision)
    machine.unpin(decision.slots_u)
    assert leaving(machine, 4) == [1, 2, 3, 0]


def test_a_users_own_policy_is_found_by_its_path() -> None:
    machine = filled(f"{__name__}:HighestSlotFirst", [[0], [3]], 4)
    assert leaving(machine, 3) == [3, 2, 1]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("lruu", "no victim policy 'lruu'; the built-in ones are"),
        ("no_such_module:Policy", "cannot import 'no_such_module'"),
        ("json:Policy", "module 'json' has no 'Policy'"),
        (f"{__name__}:NoPolicy", "has no scores"),
    ],
)
def test_a_policy_that_is_not_there_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(PolicyNotFound, match=why):
        find_policy(name)
    with pytest.raises(ValidationError, match=why):
        StoreOptions(policy=name)


@given(st.data(), st.integers(1, 60), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_the_scan_finds_the_lowest_scores_whatever_their_spread(data: st.DataObject, count: int, want: int) -> None:
    wide = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
    scores = np.array(data.draw(st.lists(wide, min_size=count, max_size=count)), dtype=np.int64)
    states = np.array(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)), dtype=np.uint8)
    pins = np.array(data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)), dtype=np.int32)
    eligible = [slot for slot in range(count) if states[slot] >= 2 and not pins[slot]]
    chosen = select_lowest(scores, states, pins, 2, want)
    assert sorted(set(chosen.tolist())) == chosen.tolist()
    assert set(chosen.tolist()) <= set(eligible)
    assert len(chosen) >= min(want, len(eligible))
    lowest = sorted(int(scores[slot]) for slot in eligible)[:want]
    assert sorted(int(scores[slot]) for slot in chosen)[: len(lowest)] == lowest


def test_every_built_in_policy_scores_all_slots() -> None:
    zeros = np.zeros(9, dtype=np.int64)
    for policy in POLICIES.values():
        assert policy().scores(SlotUse(zeros, zeros.astype(np.int32), zeros), 5).shape == (9,)
