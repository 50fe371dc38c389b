"""What every tier keeps. A tier's test class inherits ``TierContract`` and makes the tier; nothing else has to be
written.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cuda.plan import RowPlaces
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.store.tier import MovesRows, Tier, TierRows

EXTREMES = [-(2**63), 2**63 - 1, -1, 0, 1]
ANY_ID = st.sampled_from(EXTREMES) | st.integers(-(2**63), 2**63 - 1)
DEADLINE_S = 60


def table(name: str, dim: int, states: int = 0) -> TableSpec:
    """A table whose rows have ``dim`` weights and ``states`` numbers of state."""
    columns = [Column("weight", "float32", dim, "weight")]
    columns += [Column("momentum", "float32", states, "state")] if states else []
    return TableSpec(name, RowLayout(tuple(columns)), Initializer(), 7)


SPECS = (table("users", 4), table("items", 12, 1))
WIDE = table("wide", 512)


def ids_of(values: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def fresh_rows(random: np.random.Generator, spec: TableSpec, count: int, extra: int = 0) -> npt.NDArray[np.uint8]:
    """Random packed rows, ``extra`` bytes wider than the table's."""
    return random.integers(0, 256, (count, spec.layout.row_bytes + extra), dtype=np.uint8)


class TierContract:
    """Inherit, and return an unopened tier from ``make``."""

    def make(self) -> Tier:
        raise NotImplementedError

    @pytest.fixture
    def tier(self) -> Iterator[Tier]:
        tier = self.make()
        tier.open(SPECS)
        yield tier
        tier.close()

    @pytest.fixture
    def random(self) -> np.random.Generator:
        return np.random.default_rng()

    def test_rows_come_back_as_they_were_put(self, tier: Tier, random: np.random.Generator) -> None:
        for spec in SPECS:
            ids, rows = ids_of([5, -1, 2**40, -(2**63)]), fresh_rows(random, spec, 4)
            tier.put(spec.name, ids, rows, np.arange(4) + 9)
            got = tier.get(spec.name, ids[::-1])
            assert_rows(got, rows[::-1], (np.arange(4) + 9)[::-1], [True] * 4)

    def test_absent_rows_are_zeros_and_not_found(self, tier: Tier, random: np.random.Generator) -> None:
        rows = fresh_rows(random, SPECS[0], 1)
        tier.put("users", ids_of([0]), rows, ids_of([3]))
        got = tier.get("users", ids_of([-1, 0, -(2**63)]))
        zeros = np.zeros_like(rows)
        assert_rows(got, np.concatenate([zeros, rows, zeros]), ids_of([0, 3, 0]), [False, True, False])

    def test_an_id_may_be_asked_for_twice(self, tier: Tier, random: np.random.Generator) -> None:
        rows = fresh_rows(random, SPECS[0], 1)
        tier.put("users", ids_of([8]), rows, ids_of([3]))
        got = tier.get("users", ids_of([8, 9, 8]))
        expected = np.concatenate([rows, np.zeros_like(rows), rows])
        assert_rows(got, expected, ids_of([3, 0, 3]), [True, False, True])

    def test_no_ids_are_an_ordinary_question(self, tier: Tier) -> None:
        none = ids_of([])
        tier.put("users", none, SPECS[0].layout.empty(0), none)
        got = tier.get("users", none)
        assert got.rows_nb.shape == (0, SPECS[0].layout.row_bytes)
        assert got.versions_n.shape == got.found_n.shape == (0,)
        tier.delete("users", none)

    def test_a_put_replaces_the_row_and_its_version(self, tier: Tier, random: np.random.Generator) -> None:
        old, new = fresh_rows(random, SPECS[1], 3), fresh_rows(random, SPECS[1], 1)
        tier.put("items", ids_of([1, 2, 3]), old, ids_of([1, 1, 1]))
        tier.put("items", ids_of([2]), new, ids_of([2]))
        expected = np.concatenate([old[:1], new, old[2:]])
        assert_rows(tier.get("items", ids_of([1, 2, 3])), expected, ids_of([1, 2, 1]), [True] * 3)
        assert tier.count("items") == 3

    def test_it_tells_which_rows_it_holds(self, tier: Tier, random: np.random.Generator) -> None:
        tier.put("users", ids_of([4, -(2**63), 9]), fresh_rows(random, SPECS[0], 3), ids_of([1, 2, 3]))
        tier.delete("users", ids_of([9]))
        assert tier.holds("users", ids_of([4, 9, -(2**63), 4, 5])).tolist() == [True, False, True, True, False]
        assert tier.holds("items", ids_of([4])).tolist() == [False]
        assert tier.holds("users", ids_of([])).shape == (0,)

    def test_tables_do_not_share_ids(self, tier: Tier, random: np.random.Generator) -> None:
        tier.put("users", ids_of([4]), fresh_rows(random, SPECS[0], 1), ids_of([1]))
        assert not tier.get("items", ids_of([4])).found_n.any()
        assert tier.count("items") == 0

    def test_rows_may_be_wider_than_the_tables(self, tier: Tier, random: np.random.Generator) -> None:
        rows = fresh_rows(random, SPECS[0], 3, extra=48)
        tier.put("users", ids_of([1, 2, 3]), rows, ids_of([1, 2, 3]))
        expected = rows[:, : SPECS[0].layout.row_bytes]
        assert_rows(tier.get("users", ids_of([1, 2, 3])), expected, ids_of([1, 2, 3]), [True] * 3)

    def test_what_was_put_does_not_follow_the_callers_array(self, tier: Tier, random: np.random.Generator) -> None:
        rows, ids, versions = fresh_rows(random, SPECS[0], 2), ids_of([1, 2]), ids_of([5, 6])
        kept = rows.copy()
        tier.put("users", ids, rows, versions)
        rows[:], ids[:], versions[:] = 0xEE, 77, 77
        assert_rows(tier.get("users", ids_of([1, 2])), kept, ids_of([5, 6]), [True, True])

    def test_what_was_got_is_the_callers_own(self, tier: Tier, random: np.random.Generator) -> None:
        rows = fresh_rows(random, SPECS[0], 2)
        tier.put("users", ids_of([1, 2]), rows, ids_of([5, 6]))
        got = tier.get("users", ids_of([1, 2]))
        got.rows_nb[:], got.versions_n[:] = 0xEE, 77
        assert_rows(tier.get("users", ids_of([1, 2])), rows, ids_of([5, 6]), [True, True])

    def test_deleted_rows_are_absent_and_others_stay(self, tier: Tier, random: np.random.Generator) -> None:
        rows = fresh_rows(random, SPECS[0], 4)
        tier.put("users", ids_of([1, 2, 3, 4]), rows, ids_of([1, 2, 3, 4]))
        tier.delete("users", ids_of([4, 99, 1]))
        assert sorted(tier.ids("users").tolist()) == [2, 3]
        again = fresh_rows(random, SPECS[0], 3)
        tier.put("users", ids_of([1, 7, 8]), again, ids_of([9, 9, 9]))
        got = tier.get("users", ids_of([1, 2, 3, 4]))
        expected = np.concatenate([again[:1], rows[1:3], np.zeros_like(rows[:1])])
        assert_rows(got, expected, ids_of([9, 2, 3, 0]), [True, True, True, False])

    def test_many_rows_in_many_puts(self, tier: Tier, random: np.random.Generator) -> None:
        ids = random.permutation(150_000).astype(np.int64) * 7 - 400_000
        rows = fresh_rows(random, SPECS[0], ids.shape[0])
        for part in np.array_split(np.arange(ids.shape[0]), 23):
            tier.put("users", ids[part], rows[part], ids[part] + 3)
        order = random.permutation(ids.shape[0])
        assert_rows(tier.get("users", ids[order]), rows[order], ids[order] + 3, [True] * ids.shape[0])
        assert np.array_equal(np.sort(tier.ids("users")), np.sort(ids))

    def test_a_table_that_was_not_opened_is_named(self, tier: Tier) -> None:
        with pytest.raises(Exception, match=r"nobody.*users.*items"):
            tier.get("nobody", ids_of([1]))

    def test_flush_keeps_everything_and_close_may_come_twice(self, random: np.random.Generator) -> None:
        tier = self.make()
        tier.open(SPECS)
        rows = fresh_rows(random, SPECS[0], 1)
        tier.put("users", ids_of([1]), rows, ids_of([2]))
        tier.flush()
        assert_rows(tier.get("users", ids_of([1])), rows, ids_of([2]), [True])
        tier.close()
        tier.close()

    async def test_the_event_loop_is_refused(self, tier: Tier) -> None:
        with pytest.raises(RuntimeError, match="event loop"):
            tier.get("users", ids_of([1]))
        with pytest.raises(RuntimeError, match="event loop"):
            tier.put("users", ids_of([1]), SPECS[0].layout.empty(1), ids_of([1]))

    def test_a_reader_sees_each_row_whole_old_or_new(self, random: np.random.Generator) -> None:
        """Each row is filled with one byte, its version: whatever a reader gets, the two agree and never fall. Rows
        are long and many, so that one call takes a while.
        """
        tier, count, some, most = self.make(), 1000, 700, 100
        tier.open([WIDE])
        ids, done = np.arange(count, dtype=np.int64), threading.Event()
        tier.put("wide", ids, WIDE.layout.empty(count), np.zeros(count, dtype=np.int64))

        def write() -> None:
            try:
                for version in range(1, most):
                    rows = np.full((some, WIDE.layout.row_bytes), version, dtype=np.uint8)
                    tier.put("wide", random.choice(ids, some, replace=False), rows, np.full(some, version))
            finally:
                done.set()

        def read(seed: int) -> None:
            own, seen = np.random.default_rng(seed), np.zeros(count, dtype=np.int64)
            while not done.is_set():
                asked = own.permutation(count)
                got = tier.get("wide", asked)
                assert got.found_n.all()
                assert (got.rows_nb == got.versions_n[:, None]).all()
                assert (got.versions_n >= seen[asked]).all()
                seen[asked] = got.versions_n

        with ThreadPoolExecutor(3) as pool:
            threads = [pool.submit(read, seed) for seed in (1, 2)]
            for thread in (pool.submit(write), *threads):
                thread.result(DEADLINE_S)
        tier.close()

    def test_what_put_returned_from_is_visible_to_others(self, tier: Tier, random: np.random.Generator) -> None:
        with ThreadPoolExecutor(1) as other:
            for version in range(1, 60):
                ids = random.choice(40, 9, replace=False).astype(np.int64)
                tier.put("users", ids, fresh_rows(random, SPECS[0], 9), np.full(9, version, dtype=np.int64))
                assert (other.submit(tier.get, "users", ids).result(DEADLINE_S).versions_n == version).all()

    def test_it_behaves_like_a_dict(self) -> None:
        contract = self

        class AgainstDict(RuleBasedStateMachine):
            def __init__(self) -> None:
                super().__init__()
                self.tier = contract.make()
                self.tier.open(SPECS)
                self.model: dict[str, dict[int, tuple[bytes, int]]] = {spec.name: {} for spec in SPECS}

            @rule(spec=st.sampled_from(SPECS), ids=st.sets(ANY_ID, max_size=8), seed=st.integers(0, 2**32))
            def put(self, spec: TableSpec, ids: set[int], seed: int) -> None:
                random = np.random.default_rng(seed)
                rows, versions = fresh_rows(random, spec, len(ids)), random.integers(0, 2**62, len(ids))
                self.tier.put(spec.name, ids_of(list(ids)), rows, versions)
                for position, row_id in enumerate(ids):
                    self.model[spec.name][row_id] = (rows[position].tobytes(), int(versions[position]))

            @rule(spec=st.sampled_from(SPECS), ids=st.sets(ANY_ID, max_size=8), data=st.data())
            def delete(self, spec: TableSpec, ids: set[int], data: st.DataObject) -> None:
                held = sorted(self.model[spec.name])
                ids |= set(data.draw(st.lists(st.sampled_from(held), max_size=5))) if held else set()
                self.tier.delete(spec.name, ids_of(list(ids)))
                for row_id in ids:
                    self.model[spec.name].pop(row_id, None)

            @rule(spec=st.sampled_from(SPECS), ids=st.lists(ANY_ID, max_size=8))
            def get(self, spec: TableSpec, ids: list[int]) -> None:
                model = self.model[spec.name]
                asked = [*ids, *list(model)[:5]]
                got = self.tier.get(spec.name, ids_of(asked))
                for position, row_id in enumerate(asked):
                    row, version = model.get(row_id, (bytes(spec.layout.row_bytes), 0))
                    assert got.rows_nb[position].tobytes() == row
                    assert got.versions_n[position] == version
                    assert got.found_n[position] == (row_id in model)
                assert np.array_equal(self.tier.holds(spec.name, ids_of(asked)), got.found_n)

            @invariant()
            def holds_the_same_ids(self) -> None:
                for spec in SPECS:
                    assert sorted(self.tier.ids(spec.name).tolist()) == sorted(self.model[spec.name])
                    assert self.tier.count(spec.name) == len(self.model[spec.name])

            def teardown(self) -> None:
                self.tier.close()

        few = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
        run_state_machine_as_test(AgainstDict, settings=few)


class MovesRowsContract(TierContract):
    """For tiers that are ``MovesRows`` too."""

    def test_rows_of_many_tables_are_as_in_a_dict(self, tier: Tier) -> None:
        """Calls of both kinds in turn, deletes between them; random pairs in random order, the extremes among them."""
        assert isinstance(tier, MovesRows)
        random, held = np.random.default_rng(), dict[tuple[int, int], bytes]()
        for version in range(1, 40):
            pairs = random_pairs(random)
            tables_n = np.array([table for table, _ in pairs], dtype=np.int32)
            ids_n = ids_of([row_id for _, row_id in pairs])
            if version % 3:
                memory, at = somewhere(random, len(pairs))
                memory[:, -1] = version
                tier.put_rows(tables_n, ids_n, at)
                held |= {pair: packed(memory[n], pair[0]) for n, pair in enumerate(pairs)}
            elif version % 2:
                tier.delete(SPECS[0].name, ids_n[tables_n == 0])
                held = {pair: row for pair, row in held.items() if pair not in set(pairs) or pair[0]}
            memory, at = somewhere(random, len(pairs))
            before, found_n = memory.copy(), tier.get_rows(tables_n, ids_n, at)
            assert found_n.tolist() == [pair in held for pair in pairs]
            for n, pair in enumerate(pairs):
                if found_n[n]:
                    assert packed(memory[n], pair[0]) == held[pair]
                    memory[n, : WORDS[pair[0]]], memory[n, -1] = before[n, : WORDS[pair[0]]], before[n, -1]
            assert np.array_equal(memory, before), "nothing else was written"
        for number, spec in enumerate(SPECS):
            ids_n = ids_of([row_id for table, row_id in held if table == number])
            assert sorted(tier.ids(spec.name).tolist()) == sorted(ids_n.tolist())
            got = tier.get(spec.name, ids_n)
            assert got.found_n.all()
            for row_id, row, row_version in zip(ids_n.tolist(), got.rows_nb, got.versions_n, strict=True):
                assert row.tobytes() + row_version.tobytes() == held[number, row_id]

    def test_what_was_put_either_way_is_got_either_way(self, tier: Tier) -> None:
        assert isinstance(tier, MovesRows)
        random, ids = np.random.default_rng(), np.arange(3000)
        rows = fresh_rows(random, SPECS[1], len(ids))
        tier.put(SPECS[1].name, ids, rows, ids + 1)
        memory, at = somewhere(random, len(ids))
        assert tier.get_rows(np.ones(len(ids), np.int32), ids, at).all()
        assert np.array_equal(memory[:, : WORDS[1]].copy().view(np.uint8), rows)
        assert memory[:, -1].tolist() == (ids + 1).tolist()

    def test_a_call_without_rows_does_nothing(self, tier: Tier) -> None:
        assert isinstance(tier, MovesRows)
        none = np.empty(0, dtype=np.int64)
        tier.put_rows(none.astype(np.int32), none, RowPlaces(none, none))
        assert tier.get_rows(none.astype(np.int32), none, RowPlaces(none, none)).shape == (0,)


WORDS = [spec.layout.row_bytes // 8 for spec in SPECS]


def random_pairs(random: np.random.Generator) -> list[tuple[int, int]]:
    ids = [*EXTREMES, *range(100, 400)]
    count = int(random.integers(1, 300))
    drawn = {(int(random.integers(len(SPECS))), ids[int(random.integers(len(ids)))]) for _ in range(count)}
    return sorted(drawn, key=lambda _pair: random.random())


def somewhere(random: np.random.Generator, count: int) -> tuple[npt.NDArray[np.int64], RowPlaces]:
    """Memory full of anything, a row of words and a version at its end each, and where these lie, in random order."""
    memory = random.integers(-(2**63), 2**63 - 1, (count, max(WORDS) + 3))
    rows_n = memory.ctypes.data + memory.strides[0] * np.arange(count, dtype=np.int64)
    return memory, RowPlaces(rows_n, rows_n + 8 * (memory.shape[1] - 1))


def packed(words: npt.NDArray[np.int64], table: int) -> bytes:
    """The row of a table that lies in these words, and its version."""
    return words[: WORDS[table]].tobytes() + words[-1:].tobytes()


def assert_rows(
    got: TierRows, rows: npt.NDArray[np.uint8], versions: npt.NDArray[np.int64], found: Sequence[bool]
) -> None:
    assert np.array_equal(got.rows_nb, rows)
    assert np.array_equal(got.versions_n, versions)
    assert got.found_n.tolist() == list(found)
