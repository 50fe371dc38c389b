"""Rows on demand: any rows, from whichever tier, all of one step, beside training."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from cuda.backend import UpdateRule
from cuda.host import HostBackend
from cuda.plan import SUM, FeatureSet
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.store import (
    BadFetch,
    CacheTier,
    DramTier,
    Snapshot,
    SnapshotAbandoned,
    Store,
    StoreOptions,
    UnknownTable,
    fetcher,
)
from pipeline.store.fetched import RowParts
from pipeline.store.residency import Residency
from tests.store.fetching import WAYS, force
from tests.store.jobs import SPECS, batch_of, make_store, train_step, whole_grads
from tests.store.oracle import Oracle
from tests.store.tiers import TIERS, make_tier

DEADLINE_S = 60.0


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How few rows are read; many are always read by snapshots."""
    force(request.param, monkeypatch)
    return str(request.param)


@pytest.fixture
def by_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    force("by snapshots", monkeypatch)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", TIERS)
def test_any_rows_in_the_order_asked_and_nothing_moves(tmp_path: Path, kind: str) -> None:
    random, oracle = np.random.default_rng(), Oracle(SPECS)
    store = make_store(make_tier(kind, tmp_path), l1_rows=40)
    try:
        for step in range(1, 30):
            ids = random.integers(0, 300, (4, 8))
            batch = batch_of([[[int(row_id)] for row_id in some] for some in ids])
            grads = whole_grads(random, batch)
            oracle.train(step, batch, grads)
            train_step(store, step, batch, grads)
        assert store.counters.evictions > 0
        slots = store._residency.machine.arrays
        records: list[Any] = [slots.states_s, slots.pins_s, slots.uses_s, slots.last_use_s]
        if isinstance(store.tier, CacheTier):
            store.tier._cleaner.close()  # it calls rows clean; it is done with what it was at
            cached = store.tier._pool.machine.arrays
            records += [cached.states_s, cached.uses_s, cached.last_use_s]
        before = [part.copy() for part in records]
        for t, spec in enumerate(SPECS):
            asked = random.integers(-5, 305, 500)
            fetched = store.fetch_rows(spec.name, asked.tolist())
            assert (fetched.table, fetched.step, fetched.states) == (spec.name, 29, {})
            assert np.array_equal(fetched.ids_n, asked)
            assert {True, False} == set(fetched.updated_n.tolist())
            for n, row_id in enumerate(asked.tolist()):
                last, _ = oracle.at((t, row_id), 29)
                assert fetched.versions_n2[n].tolist() == ([1, last] if last else [0, 0])
                assert bool(fetched.updated_n[n]) == (last > 0)
                assert fetched.weights_nd[n].tobytes() == oracle.weights((t, row_id), 29).tobytes()
        assert all(np.array_equal(one, other) for one, other in zip(before, records, strict=True))
        assert store.fetch_rows("users", []).weights_nd.shape == (0, 4)
    finally:
        store.close()


def while_reading(store: Store, call: Callable[[], None]) -> Any:
    """A fetch of rows 1 and 2 with ``call`` made between its turn at the fence and its first read."""
    read = Snapshot.read

    def late(self: Snapshot, table: str, ids_n: Any) -> Any:
        call()
        return read(self, table, ids_n)

    with patch.object(Snapshot, "read", late):
        return store.fetch_rows("users", [1, 2])


def train(store: Store, step: int, *ids: int) -> None:
    batch = batch_of([[list(ids)], [[]], [[]], [[]]])
    train_step(store, step, batch, whole_grads(np.random.default_rng(), batch))


@pytest.mark.usefixtures("by_snapshots")
def test_rows_overwritten_meanwhile_are_those_of_the_step_it_began_at() -> None:
    store = make_store()
    train(store, 1, 1, 2)
    before = store.fetch_rows("users", [1, 2])
    fetched = while_reading(store, lambda: train(store, 2, 1, 2, 3))
    assert fetched.step == 1
    assert fetched.weights_nd.tobytes() == before.weights_nd.tobytes()
    assert store.fetch_rows("users", [1]).step == 2
    store.close()


@pytest.mark.usefixtures("by_snapshots")
def test_only_rows_that_were_asked_for_are_kept() -> None:
    store = make_store()
    train(store, 1, *range(10))
    while_reading(store, lambda: train(store, 2, *range(10)))
    assert store.counters.saved_rows == 2
    store.close()


@pytest.mark.usefixtures("by_snapshots")
def test_a_fetch_whose_old_rows_find_no_room_fails_and_training_goes_on() -> None:
    store = make_store(shadow_bytes=0, spill_bytes=0)
    train(store, 1, 1, 2)
    with pytest.raises(SnapshotAbandoned, match="fetch"):
        while_reading(store, lambda: train(store, 2, 1))
    assert store.counters.abandoned["fetch"] == 1
    assert store.fetch_rows("users", [1]).versions_n2.tolist() == [[1, 2]]
    store.close()


def test_few_rows_in_memory_are_copied_at_the_fence_and_steps_keep_nothing_for_them() -> None:
    store = make_store(l1_rows=12)
    oracle, random = Oracle(SPECS), np.random.default_rng()
    for step in range(1, 5):  # the rows of the last two are in L1
        batch = batch_of([[[5 * step + n for n in range(5)]], [[]], [[]], [[]]])
        grads = whole_grads(random, batch)
        oracle.train(step, batch, grads)
        train_step(store, step, batch, grads)
    asked = [24, 5, 99, 24, 6, 23, 5]
    fetched = store.fetch_rows("users", asked)
    assert store.counters.evictions > 0
    assert store.counters.copied_at_fence == 1
    assert store.counters.snapshots["fetch"] == 0
    assert fetched.step == 4
    assert fetched.versions_n2[:, 1].tolist() == [4, 1, 0, 4, 1, 4, 1]
    for n, row_id in enumerate(asked):
        assert fetched.weights_nd[n].tobytes() == oracle.weights((0, row_id), 4).tobytes()
    store.close()


def test_a_step_waits_while_rows_are_copied() -> None:
    """It would overwrite them."""
    store = make_store()
    train(store, 1, 1, 2)
    before = store.fetch_rows("users", [1, 2])
    copy, training = Residency.copy_few, ThreadPoolExecutor(1)

    def late(*arguments: Any) -> Any:
        trained, began = training.submit(train, store, 2, 1, 2), time.monotonic()
        while not store.fence.step_waits:  # or has it not to wait?
            assert not trained.done()
            assert time.monotonic() < began + DEADLINE_S
        return copy(*arguments)

    with training, patch.object(Residency, "copy_few", late):
        fetched = store.fetch_rows("users", [1, 2])
    assert (fetched.step, store.fence.step) == (1, 2)
    assert fetched.weights_nd.tobytes() == before.weights_nd.tobytes()
    assert store.counters.saved_rows == 0
    store.close()


def test_rows_on_a_disk_are_read_behind_the_turn_as_they_stood_in_it(tmp_path: Path) -> None:
    """Of one call some rows are copied and some come later, and training has overwritten them all by then."""
    store = make_store(make_tier("ssd", tmp_path), l1_rows=10)
    for step, some in enumerate((range(10), range(10, 20)), start=1):
        train(store, step, *some)
    fetch = partial(store.fetch_rows, "users", [1, 11, 12, 2, 99])
    before, read = fetch(), Snapshot.read
    read_later: list[Any] = []

    def late(self: Snapshot, table: str, ids_n: Any) -> Any:
        read_later.extend(ids_n.tolist())
        train(store, 3, *range(10, 20))
        train(store, 4, *range(10))
        return read(self, table, ids_n)

    with patch.object(Snapshot, "read", late):
        fetched = fetch()
    assert read_later == [1, 2, 99]
    assert store.counters.saved_rows == 2
    assert fetched.step == 2
    assert fetched.versions_n2[:, 1].tolist() == [1, 2, 2, 1, 0]
    assert fetched.weights_nd.tobytes() == before.weights_nd.tobytes()
    store.close()


def test_a_turn_stays_short_while_l1_is_busy_or_a_step_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows come through a snapshot then, and they are the same."""
    monkeypatch.setattr(fetcher, "PATIENCE_S", 1e-6)
    store = make_store()
    train(store, 1, 1, 2)
    fetch = partial(store.fetch_rows, "users", [2, 1])
    expected, opened = fetch().weights_nd.tobytes(), threading.Event()
    assert (store.counters.copied_at_fence, store.counters.snapshots["fetch"]) == (1, 0)
    freeze = store._fetcher._freeze

    def told(*arguments: Any, **named: Any) -> Any:
        opened.set()
        return freeze(*arguments, **named)

    monkeypatch.setattr(store._fetcher, "_freeze", told)
    with ThreadPoolExecutor(1) as other:
        with store._residency.residency:
            busy = other.submit(fetch)
            assert opened.wait(DEADLINE_S)
        assert busy.result().weights_nd.tobytes() == expected
    assert (store.counters.copied_at_fence, store.counters.snapshots["fetch"]) == (1, 1)
    monkeypatch.setattr(store.fence, "step_waits", True)
    assert fetch().weights_nd.tobytes() == expected
    assert (store.counters.copied_at_fence, store.counters.snapshots["fetch"]) == (1, 2)
    store.close()


@pytest.mark.parametrize(
    ("weights", "dim", "states"),
    [("float32", 4, "float32"), ("float16", 5, "float32"), ("bfloat16", 6, "bfloat16"), ("float16", 7, "bfloat16")],
)
def test_columns_of_rows_in_two_parts_are_those_of_whole_rows(weights: str, dim: int, states: str) -> None:
    """However narrow and odd they are."""
    layout = RowLayout(
        (
            Column("weight", weights, dim, "weight"),
            Column("m", states, dim, "state"),
            Column("v", "float32", 1, "state"),
        )
    )
    rows_nb = np.random.default_rng().integers(0, 120, (9, layout.row_bytes + 16), dtype=np.uint8)
    parts, weights_alone = RowParts(layout, 9, states=True), RowParts(layout, 9, states=False)
    order = np.random.default_rng().permutation(9)
    for each in (parts, weights_alone):
        each.put(order, rows_nb[order])
    for column in layout.columns:
        assert parts.singles(column.name).tobytes() == layout.singles(rows_nb, column.name).tobytes()
    assert weights_alone.singles("weight").tobytes() == parts.singles("weight").tobytes()


def test_narrow_rows_of_an_odd_width_are_copied_too() -> None:
    columns = Column("weight", "float16", 5, "weight"), Column("momentum", "float32", 1, "state")
    spec = TableSpec("odd", RowLayout(columns), Initializer(), 0)
    one = FeatureSet(("f",), np.zeros(1, np.int32), np.full(1, 5, np.int32), np.full(1, SUM, np.int32), 1)
    rules, options = [UpdateRule("rowwise_adagrad", (0.1, 1e-8))], StoreOptions(l1_rows=8)
    store = Store([spec], rules, one, HostBackend(1), DramTier(), options)
    store.open()
    rows_nb = np.random.default_rng().integers(0, 60, (12, spec.layout.row_bytes), dtype=np.uint8)
    store.load_rows("odd", np.arange(12), rows_nb, np.full(12, 1))
    train_step(store, 1, batch_of([[[1, 2, 3]]], one), [np.zeros((1, 5), np.float32)])
    fetched = store.fetch_rows("odd", [3, 9, 1])
    assert store.counters.copied_at_fence == 1
    expected = spec.layout.singles(rows_nb[[3, 9, 1]], "weight")
    assert fetched.weights_nd.tobytes() == expected.tobytes()
    assert fetched.states["momentum"].tobytes() == spec.layout.view(rows_nb[[3, 9, 1]], "momentum").tobytes()
    store.close()


@pytest.mark.parametrize("bound", ["MOST_ROWS", "MOST_BYTES"])
def test_many_rows_are_not_copied_in_one_turn(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    store = make_store()
    row_bytes = store.spec_of("users").layout.row_bytes
    monkeypatch.setattr(fetcher, bound, 8 if bound == "MOST_ROWS" else 8 * row_bytes)
    for count, snapshots in ((8, 0), (9, 1)):
        assert store.fetch_rows("users", range(count)).weights_nd.shape[0] == count
        assert store.counters.snapshots["fetch"] == snapshots
    store.close()


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        ([1.5], "integers"),
        ([[1]], "one-dimensional"),
        (["1"], "integers"),
        ([2**63], "integers"),
        (range(9), "9 rows were asked for, and store.fetch_rows allows 8"),
    ],
)
def test_what_cannot_be_fetched_is_told(ids: Any, why: str) -> None:
    store = make_store(fetch_rows=8)
    with pytest.raises(BadFetch, match=why):
        store.fetch_rows("users", ids)
    with pytest.raises(UnknownTable, match="users"):
        store.fetch_rows("nobody", [1])
    assert store.fetch_rows("users", range(8)).updated_n.tolist() == [False] * 8
    store.close()


def test_not_on_the_event_loop() -> None:
    store = make_store()

    async def ask() -> None:
        store.fetch_rows("users", [1])

    with pytest.raises(RuntimeError, match="lane"):
        asyncio.run(ask())
    store.close()
