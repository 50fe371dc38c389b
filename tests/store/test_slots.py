"""The slot machine against a plain dict."""

from __future__ import annotations

from dataclasses import dataclass, replace

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from pipeline.store import TransitionError
from pipeline.store.policy import POLICIES
from pipeline.store.slots import CLEAN, DIRTY, FREE, LOADING, Decision, SlotMachine

NUM_SLOTS = 7
Slots = npt.NDArray[np.int32]


@dataclass
class Held:
    """What the model knows of one slot."""

    pair: int
    state: int
    pins: int
    last_use: int
    uses: int


class AnyPolicy(RuleBasedStateMachine):
    """Batches are reserved, loaded, written, released and cleaned in any legal order; now and then in one that is not."""

    policy = "lru"
    few = SlotMachine.few
    batches = Bundle("batches")

    def __init__(self) -> None:
        super().__init__()
        self.machine = SlotMachine(NUM_SLOTS, POLICIES[self.policy](), threads=2)
        self.machine.few = self.few
        self.held: dict[int, Held] = {}
        self.step = 0

    def slots_of(self, ids: list[int]) -> Slots:
        by_pair = {held.pair: slot for slot, held in self.held.items()}
        return np.array([by_pair.get(pair, -1) for pair in ids], dtype=np.int32)

    @rule(target=batches, ids=st.sets(st.integers(0, 11), max_size=NUM_SLOTS), drop=st.booleans())
    def reserve(self, ids: set[int], drop: bool) -> Slots:
        wanted, step = sorted(ids), self.step + 1
        slots_u = self.slots_of(wanted)
        hits = {int(slot) for slot in slots_u if slot >= 0}
        idle = {slot for slot, held in self.held.items() if not held.pins} - hits
        decision = self.machine.decide(slots_u, step)
        if len(wanted) - len(hits) > NUM_SLOTS - len(self.held) + len(idle):
            assert decision is None
            return np.empty(0, dtype=np.int32)
        assert decision is not None
        if drop:
            return np.empty(0, dtype=np.int32)  # a decision that is not carried out changes nothing
        self.check(decision, hits, idle)
        self.machine.cleaned(decision.dirty_d)
        self.machine.commit(decision)
        self.step = step
        for slot in decision.slots_m[decision.num_free :]:
            del self.held[int(slot)]
        for slot, position in zip(decision.slots_m, decision.misses_m, strict=True):
            self.held[int(slot)] = Held(wanted[position], LOADING, 0, 0, 0)
        for slot in decision.slots_u:
            held = self.held[int(slot)]
            held.pins, held.uses, held.last_use = held.pins + 1, held.uses + 1, step
        return decision.slots_u

    def check(self, decision: Decision, hits: set[int], idle: set[int]) -> None:
        victims = [int(slot) for slot in decision.slots_m[decision.num_free :]]
        taken = [int(slot) for slot in decision.slots_m]
        assert len(set(taken)) == len(taken) == len(decision.misses_m)
        assert not hits & set(taken)
        assert set(victims) <= idle, "a pinned row or one of the batch itself is a victim"
        assert not set(taken[: decision.num_free]) & self.held.keys()
        assert not victims or NUM_SLOTS - len(self.held) == decision.num_free, "a row left although a slot was free"
        assert {int(slot) for slot in decision.dirty_d} == {slot for slot in victims if self.held[slot].state == DIRTY}

    @rule(batch=batches)
    def load(self, batch: Slots) -> None:
        slots = np.array(
            [s for s in batch if int(s) in self.held and self.held[int(s)].state == LOADING], dtype=np.int32
        )
        self.machine.loaded(slots)
        for slot in slots:
            self.held[int(slot)].state = CLEAN

    @rule(batch=batches)
    def write_what_is_not_there(self, batch: Slots) -> None:
        legal = all(
            int(s) in self.held and self.held[int(s)].state != LOADING and self.held[int(s)].pins for s in batch
        )
        if not legal:
            with pytest.raises(TransitionError):
                self.machine.unpin(batch, written=True)

    @rule(batch=consumes(batches), written=st.booleans())
    def release(self, batch: Slots, written: bool) -> None:
        if any(self.held[int(slot)].state == LOADING for slot in batch):
            self.load(batch)
        unpinned = self.machine.unpin(batch, written)
        for slot in batch:
            held = self.held[int(slot)]
            held.pins -= 1
            held.state = DIRTY if written else held.state
        assert unpinned == sum(self.held[int(slot)].pins == 0 for slot in batch)

    @rule(slot=st.integers(0, NUM_SLOTS - 1))
    def clean(self, slot: int) -> None:
        held = self.held.get(slot)
        if held is not None and held.state == DIRTY and not held.pins:
            self.machine.cleaned(np.array([slot], dtype=np.int32))
            held.state = CLEAN
        else:
            with pytest.raises(TransitionError):
                self.machine.cleaned(np.array([slot], dtype=np.int32))

    @rule(slot=st.integers(0, NUM_SLOTS - 1))
    def give_back(self, slot: int) -> None:
        held = self.held.get(slot)
        if held is not None and held.state == CLEAN and not held.pins:
            self.machine.give_back(np.array([slot], dtype=np.int32))
            del self.held[slot]
        else:
            with pytest.raises(TransitionError):
                self.machine.give_back(np.array([slot], dtype=np.int32))

    @rule(ids=st.sets(st.integers(0, 11)), ahead=st.integers(1, 9))
    def expect(self, ids: set[int], ahead: int) -> None:
        self.machine.expect(self.slots_of(sorted(ids)), self.step + ahead)

    @precondition(lambda self: any(not held.pins for held in self.held.values()))
    @rule()
    def unpin_what_has_no_pin(self) -> None:
        idle = next(slot for slot, held in self.held.items() if not held.pins)
        pinned = [slot for slot, held in self.held.items() if held.pins]
        with pytest.raises(TransitionError):
            self.machine.unpin(np.array([*pinned, idle], dtype=np.int32))

    @invariant()
    def agrees_with_the_model(self) -> None:
        arrays = self.machine.arrays
        for slot in range(NUM_SLOTS):
            held = self.held.get(slot)
            assert arrays.states_s[slot] == (FREE if held is None else held.state)
            assert arrays.pins_s[slot] == (0 if held is None else held.pins)
            if held is not None:
                assert (arrays.last_use_s[slot], arrays.uses_s[slot]) == (held.last_use, held.uses)
        assert self.machine.num_free == NUM_SLOTS - len(self.held)
        assert self.machine.num_pinned == sum(held.pins > 0 for held in self.held.values())


class LfuPolicy(AnyPolicy):
    policy = "lfu"


class LookaheadPolicy(AnyPolicy):
    policy = "lookahead"


class ManyThreads(AnyPolicy):
    """Even one slot is changed by the loops of several threads."""

    few = 0


FEW = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestLru = AnyPolicy.TestCase
TestLfu = LfuPolicy.TestCase
TestLookahead = LookaheadPolicy.TestCase
TestManyThreads = ManyThreads.TestCase
for _case in (TestLru, TestLfu, TestLookahead, TestManyThreads):
    _case.settings = FEW
del _case


def test_a_forbidden_change_names_the_slot_and_changes_nothing() -> None:
    machine = SlotMachine(4, POLICIES["lru"]())
    decision = machine.decide(np.full(3, -1, dtype=np.int32), 1)
    assert decision is not None
    machine.commit(decision)
    machine.loaded(decision.slots_m[:2])
    with pytest.raises(TransitionError, match="release: slot 2 is LOADING with 1 pins"):
        machine.unpin(decision.slots_m, written=True)
    assert list(machine.arrays.states_s) == [CLEAN, CLEAN, LOADING, FREE]
    assert list(machine.arrays.pins_s) == [1, 1, 1, 0]


def test_a_pin_that_is_forbidden_counts_no_use() -> None:
    machine = SlotMachine(3, POLICIES["lru"]())
    decision = machine.decide(np.full(2, -1, dtype=np.int32), 1)
    assert decision is not None
    machine.commit(decision)
    with pytest.raises(TransitionError, match="pin: slot 2 is FREE with 0 pins"):
        machine.commit(
            replace(decision, step=2, slots_m=decision.slots_m[:0], slots_u=np.array([0, 2], dtype=np.int32))
        )
    assert list(machine.arrays.last_use_s) == [1, 1, 0]
    assert list(machine.arrays.uses_s) == [1, 1, 0]
    assert list(machine.arrays.pins_s) == [1, 1, 0]


def test_a_slot_that_does_not_exist_is_refused() -> None:
    machine = SlotMachine(4, POLICIES["lru"]())
    with pytest.raises(TransitionError, match="no slot"):
        machine.loaded(np.array([4], dtype=np.int32))


def test_counts_name_every_state() -> None:
    machine = SlotMachine(5, POLICIES["lru"]())
    decision = machine.decide(np.full(3, -1, dtype=np.int32), 1)
    assert decision is not None
    machine.commit(decision)
    machine.loaded(decision.slots_m[:2])
    machine.unpin(decision.slots_m[:1], written=True)
    assert machine.counts() == {"free": 2, "loading": 1, "clean": 1, "dirty": 1, "pinned": 2}


@pytest.mark.parametrize("given_back", [0, 1])
def test_a_decision_is_good_for_later_once_it_is_renewed(given_back: int) -> None:
    """Meanwhile a row was given back, others were cleaned, and candidates were looked for anew."""
    machine = SlotMachine(4, POLICIES["lru"]())
    first = machine.decide(np.full(3, -1, dtype=np.int32), 1)
    assert first is not None
    machine.commit(first)
    machine.loaded(first.slots_m)
    machine.unpin(first.slots_u, written=True)
    decision = machine.decide(np.full(3, -1, dtype=np.int32), 2)
    assert decision is not None
    assert decision.num_free == 1
    machine.cleaned(first.slots_u)
    (spared,) = set(first.slots_u.tolist()) - set(decision.slots_m.tolist())
    machine.give_back(np.array([spared] * given_back, dtype=np.int32))
    machine.victims.refill(4, 2)
    renewed = machine.renewed(decision)
    assert renewed.slots_m.tolist()[1:] == decision.slots_m.tolist()[1:]
    assert renewed.slots_u.tolist() == renewed.slots_m.tolist()
    machine.commit(renewed)
    assert machine.num_free == given_back
    assert (machine.arrays.states_s[renewed.slots_u] == LOADING).all()
    again = machine.decide(np.full(1, -1, dtype=np.int32), 3)
    assert again is not None
    machine.commit(again)
    assert len({*renewed.slots_u.tolist(), *again.slots_u.tolist()}) == 4
