"""The index says what a dict says, whatever is put in, taken out and put in again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.rows import index_kernels
from pipeline.rows.index import IdIndex
from pipeline.rows.initial import mix

EDGES = [0, 1, -1, 2**63 - 1, -(2**63), 2**32, 2**32 - 1, -(2**32)]


def colliding_ids(count: int) -> list[int]:
    """Ids whose entries all begin their search at one place of a table of 64, found by trying."""
    return [row_id for row_id in range(64 * count * 2) if int(mix(np.uint64(row_id))) & 63 == 63][:count]


ids = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.integers(-20, 40), st.sampled_from(EDGES), st.sampled_from(colliding_ids(30))
)
id_lists = st.lists(ids, max_size=40)


class IndexMachine(RuleBasedStateMachine):
    """``positions`` is the model: what each id's position is."""

    @initialize(hint=st.integers(0, 100))
    def start(self, hint: int) -> None:
        self.index = IdIndex(hint)
        self.positions: dict[int, int] = {}
        self.used = 0

    @rule(found=id_lists)
    def insert(self, found: list[int]) -> None:
        for row_id, position in zip(found, self.index.insert(found).tolist(), strict=True):
            if row_id not in self.positions:
                assert position not in self.positions.values(), "two ids at one position"
                assert position <= self.used
                assert position < self.used or len(self.positions) == self.used, "a freed position was left unused"
                self.used = max(self.used, position + 1)
                self.positions[row_id] = position
            assert self.positions[row_id] == position

    @rule(found=id_lists)
    def remove(self, found: list[int]) -> None:
        assert self.index.remove(found).tolist() == [self.positions.pop(row_id, -1) for row_id in found]

    @rule(found=id_lists)
    def find(self, found: list[int]) -> None:
        assert self.index.find(found).tolist() == [self.positions.get(row_id, -1) for row_id in found]

    @rule()
    def remove_all(self) -> None:
        self.index.remove(self.index.ids())
        self.positions.clear()

    @invariant()
    def holds_what_the_dict_holds(self) -> None:
        found, positions = self.index.items()
        assert dict(zip(found.tolist(), positions.tolist(), strict=True)) == self.positions
        assert (np.diff(positions) > 0).all()
        assert self.index.count == len(self.positions) <= self.index.capacity
        assert self.index.ids().tolist() == found.tolist()


TestIndexAgainstADict = IndexMachine.TestCase
TestIndexAgainstADict.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_many_ids_keep_their_positions_while_it_grows() -> None:
    rng = np.random.default_rng()
    many = np.unique(rng.integers(-(2**63), 2**63 - 1, 200_000))
    rng.shuffle(many)
    index, seen = IdIndex(), []
    for piece in np.array_split(many, 9):
        seen.append(index.insert(piece))
    positions = np.concatenate(seen)
    assert positions.tolist() == list(range(many.shape[0])), "new ids get dense positions, in order"
    order = rng.permutation(many.shape[0])
    assert (index.find(many[order]) == positions[order]).all()
    assert (index.find(many ^ np.int64(1 << 40)) == -1).mean() > 0.999
    assert index.nbytes < 43 * many.shape[0]


def test_churn_does_not_grow_it() -> None:
    index = IdIndex()
    for start in range(0, 2_000_000, 10_000):
        index.insert(np.arange(start, start + 10_000))
        if start:
            index.remove(np.arange(start - 10_000, start))
        capacity = index.capacity
    assert (index.count, capacity) == (10_000, 24_576)


def test_a_hint_makes_room_from_the_start() -> None:
    index = IdIndex(100_000)
    before = index.nbytes
    index.insert(np.arange(100_000))
    assert index.nbytes == before


def test_compiled_code_finds_through_the_arrays() -> None:
    index = IdIndex()
    index.insert([5, -1])
    assert [index_kernels.find_position(*index.arrays, np.int64(row_id)) for row_id in (5, -1, 6)] == [0, 1, -1]


def test_ids_that_are_not_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="float64"):
        IdIndex().insert([1.0])
    with pytest.raises(TypeError, match="uint64"):
        IdIndex().find(np.array([2**63], dtype=np.uint64))
