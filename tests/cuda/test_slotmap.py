"""The map from pair to slot, driven at random beside a plain dict."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cuda.host import HostBackend
from cuda.host.slotmap import capacity_for
from tests.cuda import cases

NUM_TABLES, NUM_SLOTS = 3, 96
ANY_ID = st.sampled_from(cases.EXTREMES) | st.integers(0, 40) | st.integers(-(2**63), 2**63 - 1)
PAIRS = st.lists(st.tuples(st.integers(0, NUM_TABLES - 1), ANY_ID), max_size=40, unique=True)


class SlotMap(RuleBasedStateMachine):
    """Slots are taken and given back in random order; half the map's entries are in use when L1 is full."""

    @initialize(seed=st.integers(0, 2**32))
    def open(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.backend = HostBackend(threads=2)
        self.backend.open([table.spec for table in cases.tables([4] * NUM_TABLES)], NUM_SLOTS)
        self.slot_of: dict[tuple[int, int], int] = {}

    @rule(pairs=PAIRS)
    def admit(self, pairs: list[tuple[int, int]]) -> None:
        """New pairs take slots at random, free or not; whoever owned one is forgotten."""
        new = [pair for pair in pairs if pair not in self.slot_of]
        slots = self.random.permutation(NUM_SLOTS)[: len(new)].tolist()
        self.backend.admit(np.array(slots, np.int32), *arrays(new))
        self.slot_of = {pair: slot for pair, slot in self.slot_of.items() if slot not in slots}
        self.slot_of |= dict(zip(new, slots, strict=True))

    @precondition(lambda self: self.slot_of)
    @rule(share=st.floats(0, 1))
    def forget(self, share: float) -> None:
        """Some bound slots and some that are not."""
        slots = [slot for slot in range(NUM_SLOTS) if self.random.random() < share]
        self.backend.forget(np.array(slots, np.int32))
        self.slot_of = {pair: slot for pair, slot in self.slot_of.items() if slot not in slots}

    @rule(pairs=PAIRS)
    def locate(self, pairs: list[tuple[int, int]]) -> None:
        found = self.backend.locate(*arrays(pairs)).tolist()
        assert found == [self.slot_of.get(pair, -1) for pair in pairs]

    @invariant()
    def agrees(self) -> None:
        held = list(self.slot_of)
        assert self.backend.locate(*arrays(held)).tolist() == list(self.slot_of.values())
        tables, ids = self.backend.pairs(np.arange(NUM_SLOTS, dtype=np.int32))
        pairs = {
            (table, number): slot
            for slot, (table, number) in enumerate(zip(tables.tolist(), ids.tolist(), strict=True))
        }
        assert {pair: slot for pair, slot in pairs.items() if pair[0] >= 0} == self.slot_of

    def teardown(self) -> None:
        if hasattr(self, "backend"):
            self.backend.close()


def arrays(
    pairs: list[tuple[int, int]],
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    return np.array([table for table, _ in pairs], np.int32), np.array([number for _, number in pairs], np.int64)


TestSlotMap = SlotMap.TestCase
TestSlotMap.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_the_map_is_at_most_half_full() -> None:
    for num_slots in (1, 31, 32, 33, 100, 2**20, 2**20 + 1):
        capacity = capacity_for(num_slots)
        assert capacity >= 2 * num_slots
        assert capacity & (capacity - 1) == 0
