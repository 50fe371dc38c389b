"""``Store.load``: rows from outside, as a step of their own, against a plain dict."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cuda.backend import UpdateRule
from cuda.host import HostBackend
from cuda.plan import SlotPlan
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.store import (
    AdmissionRule,
    BadLoad,
    BatchesInFlight,
    BrokenFence,
    DramTier,
    DynamicTables,
    ExpiryRule,
    HookFailed,
    Snapshot,
    Store,
    StoreOptions,
    Tier,
    TierFull,
    UnknownTable,
)
from pipeline.store.admission import LEAST_BYTES
from pipeline.store.dram import INDEX_BYTES
from pipeline.store.loading import CHUNK_ROWS
from pipeline.store.row_blocks import WORD_BYTES
from tests.store.fetching import WAYS, force
from tests.store.jobs import (
    DIMS,
    EXTREME_IDS,
    FEATURES,
    SPECS,
    TABLE_NAMES,
    batch_of,
    make_store,
    matrices,
    random_batch,
    reserve,
    train_step,
    whole_grads,
)
from tests.store.oracle import Float32s, Oracle
from tests.store.tiers import TIERS, make_tier


def fresh(random: np.random.Generator, count: int, table: int = 0) -> Float32s:
    """Whole numbers, so that gradients of whole numbers leave sums exact."""
    return random.integers(-50, 50, (count, DIMS[table])).astype(np.float32)


def assert_is(store: Store, oracle: Oracle, table: int, ids: Any) -> None:
    """Weights and steps of rows are those of the dict at the last step's end."""
    rows = store.fetch_rows(TABLE_NAMES[table], ids)
    for n, row_id in enumerate(rows.ids_n.tolist()):
        step, _ = oracle.at((table, row_id), rows.step)
        assert rows.versions_n2[n].tolist() == ([1, step] if step else [0, 0]), row_id
        assert rows.weights_nd[n].tobytes() == oracle.weights((table, row_id), rows.step).tobytes(), row_id


def train(store: Store, oracle: Oracle, random: np.random.Generator, *ids: int) -> None:
    batch = batch_of([[list(ids)], [[]], [[]], [[]]])
    grads, step = whole_grads(random, batch), store.fence.step + 1
    oracle.train(step, batch, grads)
    train_step(store, step, batch, grads)


def load(store: Store, oracle: Oracle, random: np.random.Generator, ids: Any, table: int = 0) -> int:
    ids_n, step = np.array(ids, dtype=np.int64), store.fence.step + 1
    weights_nd = fresh(random, len(ids_n), table)
    oracle.load(step, table, ids_n, weights_nd)
    assert store.load(TABLE_NAMES[table], ids_n, weights_nd) == step
    return step


PLACES = ("clean in L1", "dirty in L1", "below", "never seen")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", TIERS)
def test_rows_are_overwritten_wherever_they_are_and_a_snapshot_keeps_the_old_ones(
    tmp_path: Path, kind: str, place: str
) -> None:
    random, oracle = np.random.default_rng(), Oracle(SPECS)
    store = make_store(make_tier(kind, tmp_path), l1_rows=8, clean_ahead=1.0)
    ids = [5, -1, int(EXTREME_IDS[0])]
    if place != "never seen":
        train(store, oracle, random, *ids)
    if place == "clean in L1":
        assert store.clean_ahead() == len(ids)
    if place == "below":
        train(store, oracle, random, *range(100, 108))
        assert store.counters.evictions == len(ids)
    before = store.fence.step
    with (
        store.freeze("all", blocking=True) as old,
        store.freeze({"users": np.array(ids)}, blocking=True) as some,
        store.freeze("all", blocking=True) as listed,
    ):
        load(store, oracle, random, ids)
        for snapshot in (old, some):
            rows = snapshot.read("users", np.array(ids))
            assert rows.held_n.all() == (place != "never seen")
            assert [row.tobytes() for row in rows.rows_nb] == [oracle.at((0, i), before)[1] for i in ids]
        assert listed.ids("users").tolist() == oracle.ids(0, 0, before)
    assert_is(store, oracle, 0, [*ids, 6, 100])
    train(store, oracle, random, *range(200, 208))  # they leave L1 as they were loaded, and come back
    train(store, oracle, random, *ids, 7)
    assert_is(store, oracle, 0, [*ids, 6, 7, 100, 200])
    assert store.counters.loaded_rows == len(ids)
    assert store.stats()["pinned"] == 0
    store.close()


class Told:
    """Hears of steps as a stream does."""

    def __init__(self, store: Store) -> None:
        self.store, self.steps = store, dict[int, list[list[int]]]()
        store.on_step(self)

    def __call__(self, step: int, plan: SlotPlan | None) -> None:
        assert plan is not None
        starts = plan.unique.table_start_t.tolist()
        ids_u = plan.unique.ids_u
        self.steps[step] = [sorted(ids_u[start:stop].tolist()) for start, stop in pairwise(starts)]


def test_a_load_is_one_step_however_small_l1_is_and_listeners_hear_all_its_rows(tmp_path: Path) -> None:
    random = np.random.default_rng()
    for l1_rows in (4, 64, 4096):
        oracle, store = Oracle(SPECS), make_store(make_tier("ssd", tmp_path / str(l1_rows)), l1_rows=l1_rows)
        told = Told(store)
        train(store, oracle, random, 1, 2, 3)
        assert load(store, oracle, random, range(-50, 900)) == 2
        train(store, oracle, random, 1, 2, 3)
        assert load(store, oracle, random, [], table=1) == 4
        assert told.steps[2] == [list(range(-50, 900)), [], []]
        assert told.steps[4] == [[], [], []]
        assert store.fence.step == 4
        assert_is(store, oracle, 0, range(-60, 910))
        store.close()


def test_more_rows_than_go_in_one_piece() -> None:
    random, store = np.random.default_rng(), make_store(l1_rows=2 * CHUNK_ROWS + 5, shadow_bytes=1 << 25)
    ids_n = random.permutation(2 * CHUNK_ROWS + 7)
    weights_nd = fresh(random, len(ids_n))
    with store.freeze("all", blocking=True) as old:
        assert store.load("users", ids_n, weights_nd) == 1
        assert not old.ids("users").size
    assert store.fetch_rows("users", ids_n).weights_nd.tobytes() == weights_nd.tobytes()
    assert store.stats()["pinned"] == 0
    store.close()


class Machine:
    """Trains, loads, and takes snapshots that stay open and are read piece by piece, much later."""

    def __init__(self, seed: int, tier: Tier, l1_rows: int) -> None:
        self.random, self.oracle = np.random.default_rng(seed), Oracle(SPECS)
        self.store = make_store(tier, l1_rows=l1_rows, policy=str(self.random.choice(["lru", "lfu", "lookahead"])))
        self.open: list[Snapshot] = []

    def train(self) -> None:
        batch, step = random_batch(self.random, 80, 3), self.store.fence.step + 1
        grads = whole_grads(self.random, batch)
        self.oracle.train(step, batch, grads)
        train_step(self.store, step, batch, grads)

    def load(self) -> None:
        table = int(self.random.integers(len(SPECS)))
        ids = {*self.random.integers(-5, 90, self.random.integers(0, 60)).tolist(), *EXTREME_IDS.tolist()}
        load(self.store, self.oracle, self.random, self.random.permutation(list(ids)), table)

    def clean(self) -> None:
        self.store.clean_ahead()

    def freeze(self) -> None:
        self.open.append(self.store.freeze("all", blocking=True))

    def read(self) -> None:
        for snapshot in self.open:
            table = int(self.random.integers(len(SPECS)))
            ids_n = self.random.integers(-5, 95, 20)
            rows = snapshot.read(TABLE_NAMES[table], ids_n)
            for n, row_id in enumerate(ids_n.tolist()):
                step, row = self.oracle.at((table, row_id), snapshot.step)
                assert (int(rows.versions_n[n]) & 0xFFFF, rows.rows_nb[n].tobytes()) == (step, row)

    def close(self) -> None:
        """Of a snapshot, after its list of rows was looked at."""
        if self.open:
            with self.open.pop(int(self.random.integers(len(self.open)))) as snapshot:
                for table, name in enumerate(TABLE_NAMES):
                    assert snapshot.ids(name).tolist() == self.oracle.ids(table, 0, snapshot.step)

    def check(self) -> None:
        for table in range(len(SPECS)):
            assert_is(self.store, self.oracle, table, [*range(-6, 95), *EXTREME_IDS.tolist()])


ACTIONS = ("train", "load", "clean", "freeze", "read", "close")


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(TIERS),
    l1_rows=st.sampled_from([40, 60, 300]),
    actions=st.lists(st.sampled_from(ACTIONS), min_size=5, max_size=40),
)
def test_trained_loaded_and_read_in_any_order_it_is_the_dict(
    seed: int, kind: str, l1_rows: int, actions: list[str]
) -> None:
    with TemporaryDirectory() as directory:
        machine = Machine(seed, make_tier(kind, Path(directory), cache_rows=64), l1_rows)
        try:
            for action in actions:
                getattr(machine, action)()
            machine.read()
            machine.check()
        finally:
            machine.store.close()


STATEFUL = tuple(
    TableSpec(
        spec.name,
        RowLayout(
            (
                Column("weight", weights, spec.dim, "weight"),
                Column("exp_avg", "bfloat16" if weights != "float32" else "float32", spec.dim, "state"),
                Column("count", "float32", 1, "state"),
            )
        ),
        Initializer(),
        1,
    )
    for spec, weights in zip(SPECS, ("float32", "float16", "bfloat16"), strict=True)
)
BELOW_INFINITY = 65504.0


@pytest.fixture
def stateful() -> Iterator[Store]:
    rules = (UpdateRule("sgd", (1.0,)),) * len(STATEFUL)
    store = Store(STATEFUL, rules, FEATURES, HostBackend(1), DramTier(), StoreOptions(l1_rows=64, load_rows=6))
    store.open()
    yield store
    store.close()


def nearest(values: Any, dtype: str) -> Any:
    """float32 rounded to ``dtype`` by torch, and back."""
    return torch.from_numpy(values.astype(np.float32)).to(getattr(torch, dtype)).float().numpy()


@pytest.mark.parametrize("table", range(len(STATEFUL)))
def test_states_and_what_16_bits_hold_of_float32(stateful: Store, table: int) -> None:
    random, name = np.random.default_rng(), TABLE_NAMES[table]
    ids, rows, moments = [3, -7], random.standard_normal((2, DIMS[table])), random.standard_normal((2, DIMS[table]))
    given = {"exp_avg": moments.astype(np.float32), "count": np.array([2.0, 7.0], np.float32)}
    stateful.load(name, ids, rows.astype(np.float32), given)
    found = stateful.fetch_rows(name, ids)
    weights, states = found.weights_nd, found.states
    kept = ("float32", "float16", "bfloat16")[table]
    assert weights.tobytes() == nearest(rows, kept).tobytes()
    assert states["exp_avg"].tobytes() == nearest(moments, "bfloat16" if table else "float32").tobytes()
    assert states["count"].ravel().tolist() == [2.0, 7.0]
    halves = np.float16(rows) if table == 1 else rows.astype(np.float32)
    assert stateful.load(name, [3, -7], halves) == 2, "without states they begin anew"
    found = stateful.fetch_rows(name, ids)
    assert not any(values.any() for values in found.states.values())
    if table == 1:
        assert found.weights_nd.tobytes() == halves.astype(np.float32).tobytes()


def zeros(*shape: int, dtype: Any = np.float32) -> Any:
    return np.zeros(shape, dtype)


def nan_at(row: int) -> Any:
    rows = zeros(3, 4)
    rows[row, 2] = np.nan
    return rows


GIVEN = {"exp_avg": zeros(3, 4), "count": zeros(3, 1)}
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "ids that are no integers": (([0.5, 1, 2], zeros(3, 4)), "ids are a one-dimensional sequence of 64-bit integers"),
    "ids of two dimensions": (([[0, 1, 2]], zeros(3, 4)), "one-dimensional"),
    "too large an id": (([2**63, 1, 2], zeros(3, 4)), "64-bit"),
    "an id twice": (([4, 1, 4], zeros(3, 4)), "id 4 comes twice"),
    "too many": ((range(7), zeros(7, 4)), "7 rows were given, and store.load_rows allows 6 at once"),
    "another width": (([0, 1, 2], zeros(3, 5)), r"weight is float32 of \(3, 5\); float32 of \(3, 4\) is needed"),
    "fewer rows": (([0, 1, 2], zeros(2, 4)), r"weight is float32 of \(2, 4\)"),
    "one dimension": (([0, 1, 2], zeros(12)), r"weight is float32 of \(12,\)"),
    "another dtype": (([0, 1, 2], zeros(3, 4, dtype=np.float64)), "weight is float64"),
    "half floats": (([0, 1, 2], zeros(3, 4, dtype=np.float16)), "weight is float16"),
    "other bytes first": (([0, 1, 2], zeros(3, 4, dtype=">f4")), "weight is >f4"),
    "words": (([0, 1, 2], [["a"] * 4] * 3), "weight is"),
    "rows of all lengths": (([0, 1, 2], [[1.0], [1.0, 2.0], []]), "weight is"),
    "a NaN": (([0, 1, 2], nan_at(2)), "weight of row 2 holds NaN"),
    "an infinity": (([0, 1, 2], np.full((3, 4), -np.inf, np.float32)), "weight of row 0 holds NaN or infinity"),
    "an unknown state": (([0, 1, 2], zeros(3, 4), {**GIVEN, "momentum": zeros(3, 1)}), "has no state 'momentum'"),
    "a state missing": (([0, 1, 2], zeros(3, 4), {"count": zeros(3)}), "lacks 'exp_avg': its optimizer's states are"),
    "a state of another width": (([0, 1, 2], zeros(3, 4), {**GIVEN, "count": zeros(3, 4)}), r"count is .*\(3, 4\)"),
    "a state with a NaN": (([0, 1, 2], zeros(3, 4), {**GIVEN, "exp_avg": nan_at(1)}), "exp_avg of row 1"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_loaded_is_told_and_changes_nothing(stateful: Store, why: str) -> None:
    arguments, told = REFUSED[why]
    stateful.load("users", [0, 1, 2], np.ones((3, 4), np.float32))
    before, figures = stateful.fetch_rows("users", [0, 1, 2]), stateful.stats()
    with pytest.raises(BadLoad, match=told):
        stateful.load("users", *arguments)
    after = stateful.fetch_rows("users", [0, 1, 2])
    assert after.step == before.step == 1
    assert after.weights_nd.tobytes() == before.weights_nd.tobytes()
    figures["copied_at_fence"] += 1  # the fetch
    assert stateful.stats() == figures
    assert stateful.load("users", [0, 1, 2], np.zeros((3, 4), np.float32), GIVEN) == 2


def test_too_large_for_16_bits_an_unknown_table(stateful: Store) -> None:
    stateful.load("items", [1], np.full((1, 8), BELOW_INFINITY, np.float32))
    with pytest.raises(BadLoad, match="what float16 cannot hold"):
        stateful.load("items", [1], np.full((1, 8), 2 * BELOW_INFINITY, np.float32))
    with pytest.raises(UnknownTable, match="users"):
        stateful.load("nobody", [1], zeros(1, 4))


def test_loaded_rows_of_a_dynamic_table_are_there_as_if_used_in_that_step() -> None:
    expiry = ExpiryRule(3, None, "last_use", 1)
    dynamic = DynamicTables(TABLE_NAMES, (AdmissionRule(2, LEAST_BYTES), None, None), (expiry, expiry, None))
    random, store = np.random.default_rng(), make_store(dynamic=dynamic)
    assert store.load("users", [7, 8], zeros(2, 4)) == 1
    held = []
    for step in range(2, 6):
        batch = batch_of([[[7, 9]], [[5]], [[]], [[]]])
        train_step(store, step, batch, whole_grads(random, batch))
        held.append(store.fetch_rows("users", [7, 8, 9]).updated_n.tolist())
    assert held == [[True, True, False], [True, True, False], [True, False, True], [True, False, True]]
    store.close()


def test_batches_in_flight_refuse_it_and_go_on() -> None:
    random, oracle, store = np.random.default_rng(), Oracle(SPECS), make_store()
    train(store, oracle, random, 1, 2)
    batch = batch_of([[[2, 3]], [[]], [[]], [[]]])
    grads = whole_grads(random, batch)
    oracle.train(2, batch, grads)
    reservation = reserve(store, 2, batch)
    nothing = reserve(store, 3, batch_of([[[]], [[]], [[]], [[]]]))
    with pytest.raises(BatchesInFlight, match="behind step 1 2 batches hold rows"):
        store.load("users", [1], fresh(random, 1))
    store.update(reservation, matrices(grads))
    store.release(reservation)
    with pytest.raises(BatchesInFlight, match="behind step 2 1 batches"):
        store.load("users", [1], fresh(random, 1))
    store.skip_step(3)
    store.release(nothing)
    assert load(store, oracle, random, [1, 2]) == 4
    train(store, oracle, random, 2, 3)
    assert_is(store, oracle, 0, range(5))
    store.close()


ROW_IN_DRAM = SPECS[0].layout.row_bytes + WORD_BYTES + INDEX_BYTES


@pytest.mark.parametrize("room", [0, 8, 12, 16, 20])
def test_a_tier_that_is_full_before_the_first_write_changes_nothing(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """L1 gets room for two pieces before the fence; the tier has some for all, one or none of those that have to leave."""
    monkeypatch.setattr("pipeline.store.loading.CHUNK_ROWS", 4)
    random, oracle = np.random.default_rng(), Oracle(SPECS)
    store = make_store(DramTier(max_bytes=max(room * ROW_IN_DRAM, 1)), l1_rows=8)
    fits = room // 8
    for number in range(fits + 1):
        load(store, oracle, random, range(10 * number, 10 * number + 8))
    with pytest.raises(TierFull):
        store.load("users", range(200, 208), fresh(random, 8))
    assert store.fence.step == fits + 1
    assert store.stats()["pinned"] == 0
    assert_is(store, oracle, 0, range(220))
    last = range(10 * fits, 10 * fits + 8)
    train(store, oracle, random, *last)
    load(store, oracle, random, last)
    assert_is(store, oracle, 0, range(220))
    store.close()


def test_a_tier_that_is_full_behind_the_first_write_breaks_the_fence() -> None:
    store = make_store(DramTier(max_bytes=2000), l1_rows=8)
    with pytest.raises(TierFull):
        store.load("users", range(500), fresh(np.random.default_rng(), 500))
    with pytest.raises(BrokenFence):
        store.fetch_rows("users", [1])
    store.close()


def test_hooks_of_evictions_are_called_those_of_updates_are_not() -> None:
    random, oracle, store = np.random.default_rng(), Oracle(SPECS), make_store(l1_rows=8)
    calls: list[tuple[str, list[int]]] = []
    for at in ("before_update", "after_update", "before_evict"):
        store.add_hook(at, lambda _table, ids, _rows, at=at: calls.append((at, sorted(ids.tolist()))))  # type: ignore[misc]
    train(store, oracle, random, *range(8))
    calls.clear()
    load(store, oracle, random, [*range(20, 26), 7])
    assert [at for at, _ in calls] == ["before_evict"]
    assert len(calls[0][1]) == 6
    with pytest.raises(RuntimeError, match="only before the first batch"):
        store.add_hook("after_update", lambda *_: None)
    store.close()


def test_a_hook_of_evictions_fetches_rows_unless_the_load_is_larger_than_l1() -> None:
    random, oracle, store = np.random.default_rng(), Oracle(SPECS), make_store(l1_rows=8)
    seen: list[int] = []
    store.add_hook("before_evict", lambda table, ids, _rows: seen.append(store.fetch_rows(table, ids).step))
    train(store, oracle, random, *range(8))
    load(store, oracle, random, range(20, 28))
    assert seen == [1], "the rows as they stand before the load"
    with pytest.raises(HookFailed, match="being written by this thread"):
        store.load("users", range(100, 117), fresh(random, 17))
    with pytest.raises(BrokenFence):
        store.fetch_rows("users", [1])
    store.close()


def test_a_load_counts_as_a_beginning() -> None:
    random, oracle, store = np.random.default_rng(), Oracle(SPECS), make_store()
    load(store, oracle, random, [1])
    with pytest.raises(RuntimeError, match="only before the first batch"):
        store.load_rows("users", np.array([1]), SPECS[0].layout.empty(1), np.array([1]))
    with pytest.raises(RuntimeError, match="only before the first batch"):
        store.add_hook("after_update", lambda *_: None)
    store.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", TIERS)
def test_readers_beside_it_see_all_of_a_load_or_nothing(
    tmp_path: Path, kind: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Load k writes k everywhere, and L1 holds a tenth of it."""
    force(way, monkeypatch)
    count, loads = 400, 40
    store, ended, ids_n = make_store(make_tier(kind, tmp_path), l1_rows=40), threading.Event(), np.arange(count)

    def read() -> int:
        seen = set()
        while not ended.is_set():
            rows = store.fetch_rows("users", ids_n)
            expected = rows.step if rows.step else None
            if expected is not None:
                assert (rows.weights_nd == expected).all(), f"rows of several steps at step {expected}"
                assert (rows.versions_n2[:, 1] == expected).all()
            else:
                assert not rows.updated_n.any()
            seen.add(rows.step)
        return len(seen)

    def fetches() -> int:
        return store.counters.snapshots["fetch"] + store.counters.copied_at_fence

    with ThreadPoolExecutor(3) as pool, ExitStack() as stack:
        stack.callback(ended.set)
        readers = [pool.submit(read) for _ in range(2)]
        for k in range(1, loads + 1):
            store.load("users", ids_n, np.full((count, DIMS[0]), k, np.float32))
            while fetches() < k and not any(reader.done() for reader in readers):
                store.fence.at(lambda: None)
        ended.set()
        assert max(reader.result() for reader in readers) > 3
    assert store.counters.saved_rows or way == "in the turn"
    store.close()


def test_not_on_the_event_loop() -> None:
    store = make_store()

    async def ask() -> None:
        store.load("users", [1], zeros(1, 4))

    with pytest.raises(RuntimeError, match="lane"):
        asyncio.run(ask())
    assert store.fence.step == 0
    store.close()
