"""The cache tier keeps the contract of tiers with so little memory that rows come and go all the time, and its bound."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from pipeline.files import RealFiles
from pipeline.rowlog.log import RowLog, RowLogOptions
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.store import CacheTier, CacheTooLarge, CacheTooSmall, CleaningFailed, DramTier, SsdTier, Tier
from pipeline.store.cache_cleaner import Cleaner
from pipeline.store.cache_size import LEAST_ROWS, bytes_for, rows_within
from pipeline.store.slots import DIRTY
from pipeline.store.tier import Int64s, RowBytes
from tests.contracts.tier import DEADLINE_S, SPECS, TierContract, assert_rows, fresh_rows, ids_of
from tests.sabotage.cache import SABOTAGES
from tests.store.cache_stress import CachePlan, CacheStress
from tests.store.test_ssd import SMALL, TINY

FEW = bytes_for(SPECS, 6)
SOME = 1 << 20
TRIES = 12


@pytest.fixture(autouse=True)
def few_rows_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.store.cache_size.LEAST_ROWS", 1)


class TestOverDram(TierContract):
    max_bytes, policy = SOME, "lfu"

    def make(self) -> Tier:
        return CacheTier(DramTier(), self.max_bytes, self.policy, 0.3)


class TestOverDramWithRoomForSixRows(TestOverDram):
    max_bytes, policy = FEW, "lru"
    test_a_reader_sees_each_row_whole_old_or_new = None  # type: ignore[assignment]  # not one such row fits
    test_many_rows_in_many_puts = None  # type: ignore[assignment]  # tens of thousands of write-backs


class TestOverSsd(TierContract):
    max_bytes: int = SOME
    options: RowLogOptions = SMALL

    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self.path, self.made = tmp_path, 0

    def make(self) -> Tier:
        self.made += 1
        log = RowLog([str(self.path / f"{self.made}")], RealFiles(), lambda: RealReads(4, False), self.options)
        return CacheTier(SsdTier(log), self.max_bytes, "lru", 0.3)


class TestOverSsdWithRoomForSixRows(TestOverSsd):
    max_bytes, options = FEW, TINY
    test_a_reader_sees_each_row_whole_old_or_new = None  # type: ignore[assignment]  # not one such row fits
    test_many_rows_in_many_puts = None  # type: ignore[assignment]  # thousands of files


class BreakableTier(DramTier):
    """Its ``put`` raises while it is broken."""

    name, broken = "breakable", False

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def put(self, table: str, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s) -> None:
        self.asked.set()
        if self.broken:
            raise OSError("no space left on device")
        super().put(table, ids_n, rows_nb, versions_n)


def held_bytes(tier: CacheTier) -> int:
    """What the arrays of its memory take."""
    backend, machine = tier._pool._backend, tier._pool.machine
    versions = 0 if backend._pool.version_step > 1 else backend._pool.versions.nbytes
    pool = backend._rows_sb.nbytes + versions + backend._entries_c2.nbytes
    pairs = backend._pair_tables_s.nbytes + backend._pair_ids_s.nbytes
    queue = machine.victims
    queued = queue._queue_q.nbytes + queue._last_use_q.nbytes + queue._next_use_q.nbytes
    return pool + pairs + machine.arrays.num_slots * 32 + machine._free.nbytes + queued


class Bounded(RuleBasedStateMachine):
    """Against a dict; the tier below fails now and then, and nothing is lost by it."""

    ids = st.sets(st.integers(-3, 40), max_size=20)

    def __init__(self) -> None:
        super().__init__()
        self.below = BreakableTier()
        self.tier = CacheTier(self.below, bytes_for(SPECS, 9), "lru", clean_ahead=0)
        self.tier.open(SPECS)
        self.tier._pool.window = 4
        self.model: dict[str, dict[int, tuple[bytes, int]]] = {spec.name: {} for spec in SPECS}
        self.version = 0

    @rule(table=st.sampled_from([0, 1]), ids=ids, seed=st.integers(0, 2**32))
    def put(self, table: int, ids: set[int], seed: int) -> None:
        spec, self.version = SPECS[table], self.version + 1
        rows, model = fresh_rows(np.random.default_rng(seed), spec, len(ids)), self.model[spec.name]
        taken = True
        try:
            self.tier.put(spec.name, ids_of(list(ids)), rows, np.full(len(ids), self.version))
        except OSError:
            assert self.below.broken
            taken = False
        got = self.tier.get(spec.name, ids_of(list(ids)))
        for position, row_id in enumerate(ids):
            new, old = (rows[position].tobytes(), self.version), model.get(row_id)
            row = (got.rows_nb[position].tobytes(), int(got.versions_n[position])) if got.found_n[position] else None
            assert row == new or (row == old and not taken)
            if row is not None:
                model[row_id] = row

    @rule(table=st.sampled_from([0, 1]), ids=ids)
    def delete(self, table: int, ids: set[int]) -> None:
        self.tier.delete(SPECS[table].name, ids_of(list(ids)))
        for row_id in ids:
            self.model[SPECS[table].name].pop(row_id, None)

    def trouble(self) -> AbstractContextManager[None]:
        """An error is in order where the tier below is broken."""
        return suppress(OSError) if self.below.broken else nullcontext()

    @rule(broken=st.booleans())
    def break_or_mend(self, broken: bool) -> None:
        self.below.broken = broken

    @rule()
    def clean_ahead(self) -> None:
        with self.trouble():
            self.tier.clean_ahead()

    @rule()
    def flush(self) -> None:
        with self.trouble():
            self.tier.flush()
            assert self.tier.stats()["dirty_rows"] == 0

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        for spec in SPECS:
            model = self.model[spec.name]
            ids = self.tier.ids(spec.name).tolist()
            assert sorted(ids) == sorted(model)
            assert self.tier.count(spec.name) == len(model)
            got = self.tier.get(spec.name, ids_of(ids))
            found = [(row.tobytes(), int(v)) for row, v in zip(got.rows_nb, got.versions_n, strict=True)]
            assert found == [model[row_id] for row_id in ids]

    @invariant()
    def is_bounded_and_counts_right(self) -> None:
        stats, states_s = self.tier.stats(), self.tier._pool.machine.arrays.states_s
        assert held_bytes(self.tier) <= self.tier.max_bytes
        assert stats["rows"] == np.count_nonzero(states_s) <= stats["max_rows"] == 9
        assert stats["dirty_rows"] == np.count_nonzero(states_s == DIRTY)

    def teardown(self) -> None:
        self.tier.close()


def test_it_behaves_like_a_dict_within_its_bytes_whatever_happens_below() -> None:
    run_state_machine_as_test(Bounded, settings=settings(max_examples=40, stateful_step_count=40, deadline=None))


def test_a_put_that_could_not_evict_loses_nothing_and_works_later() -> None:
    random, below = np.random.default_rng(), BreakableTier()
    tier = CacheTier(below, bytes_for(SPECS, 6), clean_ahead=0)
    tier.open(SPECS)
    rows, ids = fresh_rows(random, SPECS[0], 12), np.arange(12)
    tier.put("users", ids[:6], rows[:6], ids[:6] + 1)
    below.broken = True
    with pytest.raises(OSError, match="no space"):
        tier.put("users", ids[6:], rows[6:], ids[6:] + 1)
    assert_rows(tier.get("users", ids[:6]), rows[:6], ids[:6] + 1, [True] * 6)
    assert tier.count("users") == 6
    below.broken = False
    tier.put("users", ids[6:], rows[6:], ids[6:] + 1)
    assert_rows(tier.get("users", ids), rows, ids + 1, [True] * 12)
    expected = {"hits": 12, "misses": 6, "rows": 6, "dirty_rows": 6, "written_back": 6}
    assert {name: tier.stats()[name] for name in expected} == expected
    tier.close()


def test_an_error_of_cleaning_ahead_reaches_the_next_caller() -> None:
    random, below = np.random.default_rng(), BreakableTier()
    tier = CacheTier(below, bytes_for(SPECS, 6), clean_ahead=1.0)
    tier.open(SPECS)
    below.broken = True
    rows, ids = fresh_rows(random, SPECS[0], 6), np.arange(6)
    tier.put("users", ids, rows, ids + 1)
    assert below.asked.wait(DEADLINE_S)
    tier._cleaner.close()  # it is done with what it was at
    with pytest.raises(CleaningFailed, match=r"tier 'breakable': no space left.*none is lost"):
        tier.flush()
    below.broken = False
    tier.flush()
    assert below.count("users") == 6
    tier.close()


def test_the_thread_keeps_rows_clean_and_puts_do_not_write() -> None:
    below = BreakableTier()
    tier = CacheTier(below, bytes_for(SPECS, 6), clean_ahead=1.0)
    tier.open(SPECS)
    tier.put("users", np.arange(6), SPECS[0].layout.empty(6), np.arange(6))
    assert below.asked.wait(DEADLINE_S)
    tier._cleaner.close()
    below.broken = True
    tier.put("users", np.arange(6, 12), SPECS[0].layout.empty(6), np.arange(6))
    stats = tier.stats()
    assert stats["written_back"] == stats["cleaned_ahead"] == stats["rows"] == stats["dirty_rows"] == 6
    tier.close()


@pytest.mark.parametrize(("here", "newest"), [(1, 2), (2, 2), (3, 3)], ids=["older", "same", "younger"])
def test_a_row_that_a_checkpoint_saved_past_the_cache_is_not_put_over_by_an_older_one(
    disk: SsdTier, here: int, newest: int
) -> None:
    """The row was saved from L1; what the cache holds, dirty, is what L1 had put here before."""
    tier, spec, ids = CacheTier(disk, bytes_for(SPECS, 200), clean_ahead=0), SPECS[0], ids_of(range(50))
    rows = {version: fresh_rows(np.random.default_rng(version), spec, len(ids)) for version in (1, 2, 3)}
    tier.open(SPECS)
    try:
        tier.put(spec.name, ids, rows[here], np.full(len(ids), here))
        mark, versions_n = disk.log.mark(), np.full(len(ids), 2)
        tier.saved(spec.name, ids, versions_n, lambda: mark.save(spec.name, ids, rows[2], versions_n))
        _, held = mark.seal()
        tier.flush()
        assert_rows(disk.get(spec.name, ids), rows[newest], np.full(len(ids), newest), [True] * len(ids))
        held.release()
    finally:
        tier.close()


def test_rows_that_were_put_last_stay_and_reading_changes_nothing() -> None:
    tier = CacheTier(DramTier(), bytes_for(SPECS, 6), clean_ahead=0)
    tier.open(SPECS)
    tier.put("users", np.arange(6), SPECS[0].layout.empty(6), np.arange(6))
    tier.put("users", ids_of([0, 1]), SPECS[0].layout.empty(2), ids_of([9, 9]))
    tier.get("users", ids_of([2, 3]))
    tier.put("users", ids_of([10, 11]), SPECS[0].layout.empty(2), ids_of([9, 9]))
    assert sorted(tier._pool.dirty_ids(0).tolist()) == [0, 1, 4, 5, 10, 11]
    tier.get("users", ids_of([2, 3]))
    assert tier._pool.holds(0, ids_of([2, 3])).tolist() == [False, False]
    tier.close()


def test_the_bytes_of_a_bound_are_used_and_kept() -> None:
    for rows in (LEAST_ROWS, 1000, 4097, 100_000):
        need = bytes_for(SPECS, rows)
        assert rows_within(SPECS, need) == rows
        assert rows_within(SPECS, need - 1) < rows


def test_a_bound_without_room_for_a_batch_says_what_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    need = bytes_for(SPECS, LEAST_ROWS)
    with pytest.raises(CacheTooSmall, match=rf"dram_bytes is {need - 1}.*at least {need}"):
        CacheTier(DramTier(), need - 1).open(SPECS)
    tier = CacheTier(DramTier(), need)
    tier.open(SPECS)
    tier.close()


def test_a_bound_above_the_free_memory_is_refused() -> None:
    tier = CacheTier(DramTier(), 1 << 46)
    with pytest.raises(CacheTooLarge, match=r"lower store\.dram_bytes"):
        tier.open(SPECS)
    tier.close()


def test_a_cleaner_that_never_started_may_be_closed() -> None:
    cleaner = Cleaner(lambda: 0, "below")
    cleaner.close()
    cleaner.close()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("rows", "clean_ahead"), [(25, 0.3), (25, 0.0), (8, 1.0), (200, 0.1)])
def test_many_threads_find_every_row_whole_and_new(seed: int, rows: int, clean_ahead: float) -> None:
    plan = CachePlan(seed, bytes_for(SPECS, rows), clean_ahead=clean_ahead)
    CacheStress(plan).run().close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SsdTier]:
    tier = SsdTier(RowLog([str(tmp_path / "log")], RealFiles(), lambda: RealReads(4, False), TINY))
    yield tier
    tier.close()


def test_many_threads_find_every_row_over_the_disk(disk: SsdTier) -> None:
    CacheStress(CachePlan(9, bytes_for(SPECS, 25)), disk).run().close()


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_caught(name: str) -> None:
    for seed in range(TRIES):
        with SABOTAGES[name](), suppress(AssertionError, CleaningFailed):
            CacheStress(CachePlan(seed, bytes_for(SPECS, 25))).run().close()
            continue
        return
    pytest.fail(f"{name} went unnoticed in {TRIES} runs")
