"""Hooks: a user's code gets the rows of a step before they are written, after, and before they leave L1."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from pipeline.store import BadHook, BrokenFence, DramTier, HookFailed, Store
from tests.store.hooked import walk
from tests.store.jobs import batch_of, make_store, matrices, reserve, train_step, whole_grads

DEADLINE_S = 60


class Asked(DramTier):
    """Without the short way for rows in memory: they go through packed copies."""

    get_rows = None  # type: ignore[assignment]


@pytest.fixture(params=[DramTier, Asked])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    made = make_store(request.param(), l1_rows=48, policy="lru")
    yield made
    made.close()


def users(*ids: int) -> Any:
    return batch_of([[list(ids)], [[]], [[]], [[]]])


@pytest.mark.parametrize("ahead", [0, 3])
def test_every_hook_of_a_step_runs_before_any_row_of_it_leaves(store: Store, ahead: int) -> None:
    walk(store, ahead)


def test_hooks_run_in_the_order_they_were_added_for_their_tables_only(store: Store) -> None:
    called: list[tuple[str, str]] = []
    store.add_hook("after_update", lambda table, _ids, _rows: called.append(("first", table)))
    store.add_hook("after_update", lambda table, _ids, _rows: called.append(("second", table)), tables=["items"])
    store.add_hook("before_update", lambda table, _ids, _rows: called.append(("third", table)), tables=["users"])
    batch = batch_of([[[1]], [[2]], [[]], [[]]])
    train_step(store, 1, batch, whole_grads(np.random.default_rng(), batch))
    store.skip_step(2)
    assert called == [("third", "users"), ("first", "users"), ("first", "items"), ("second", "items")]


def test_what_a_hook_gets_is_read_only_and_stays_as_it_was(store: Store) -> None:
    kept: list[Any] = []

    def keep(_table: str, ids: Any, values: Any) -> None:
        arrays = [ids, values] if isinstance(values, np.ndarray) else [ids, values.weights_nd, values.versions_n2]
        for array in arrays:
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 0
        kept.extend((array, array.copy()) for array in arrays)

    for at in ("before_update", "after_update", "before_evict"):
        store.add_hook(at, keep)
    random = np.random.default_rng()
    for step in range(1, 30):
        batch = users(*range(40 * step, 40 * step + 30))
        train_step(store, step, batch, whole_grads(random, batch))
    assert store.counters.evictions > 0
    assert all(array.tobytes() == copy.tobytes() for array, copy in kept)


def test_a_hook_may_fetch_rows(store: Store) -> None:
    """Before the update those of the step before, after it those of the step, and rows that leave as they are."""
    fetched: dict[str, list[Any]] = {"before_update": [], "after_update": [], "before_evict": []}

    def fetch(at: str) -> Callable[..., None]:
        return lambda table, ids, rows: fetched[at].append((rows, store.fetch_rows(table, ids)))

    for at in fetched:
        store.add_hook(at, fetch(at))  # type: ignore[arg-type]
    random = np.random.default_rng()

    def train() -> None:
        for step in range(1, 20):
            batch = users(*range(20 * step, 20 * step + 30))
            train_step(store, step, batch, whole_grads(random, batch))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(train).result(DEADLINE_S)
    assert [rows.step for _, rows in fetched["before_update"]] == list(range(19))
    for rows, again in [*fetched["after_update"], *fetched["before_evict"]]:
        assert rows.weights_nd.tobytes() == again.weights_nd.tobytes()
        assert rows.versions_n2.tolist() == again.versions_n2.tolist()
    assert [again.step for _, again in fetched["after_update"]] == list(range(1, 20))
    assert len(fetched["before_evict"]) > 10


def test_a_hook_that_takes_its_time_before_rows_leave_holds_up_nobody_but_the_batch_that_is_placed() -> None:
    store = make_store(l1_rows=30)
    inside, go_on = threading.Event(), threading.Event()

    def wait(_table: str, _ids: Any, _rows: Any) -> None:
        inside.set()
        assert go_on.wait(DEADLINE_S)

    store.add_hook("before_evict", wait)
    random = np.random.default_rng()
    train_step(store, 1, users(*range(20)), whole_grads(random, users(*range(20))))
    second = reserve(store, 2, users(*range(20, 30)))
    with ThreadPoolExecutor(1) as pool:
        placing = pool.submit(reserve, store, 3, users(*range(40, 55)))
        assert inside.wait(DEADLINE_S)
        store.update(second, matrices(whole_grads(random, users(*range(20, 30)))))
        store.release(second)
        store.clean_ahead()
        assert store.fetch_rows("users", range(60)).step == 2
        go_on.set()
        third = placing.result(DEADLINE_S)
    store.update(third, matrices(whole_grads(random, users(*range(40, 55)))))
    store.release(third)
    assert store.fetch_rows("users", range(20)).versions_n2[:, 1].tolist() == [1] * 20
    store.close()


@pytest.mark.parametrize("at", ["before_update", "after_update", "before_evict"])
def test_a_hook_that_raises_stops_with_its_name_its_table_and_the_step(store: Store, at: Any) -> None:
    def broken(_table: str, _ids: Any, _rows: Any) -> None:
        raise ZeroDivisionError("no such luck")

    store.add_hook(at, broken, tables=["users"], name="my_hook")
    grads = whole_grads(np.random.default_rng(), users(*range(20)))

    def train() -> None:
        for step in range(1, 9):
            train_step(store, step, users(*range(20 * step, 20 * step + 20)), grads)

    with pytest.raises(HookFailed) as caught:
        train()
    step = 3 if at == "before_evict" else 1
    said = str(caught.value)
    assert f"hook 'my_hook' ({at}) failed at step {step}, table 'users': ZeroDivisionError: no such luck" in said
    if at == "after_update":
        with pytest.raises(BrokenFence):
            store.fetch_rows("users", [1])
    else:
        assert store.fetch_rows("users", [20]).step == step - 1


def test_a_hook_that_raises_is_skipped_and_counted_where_it_may(store: Store) -> None:
    called: list[str] = []

    def broken(_table: str, ids: Any, _rows: Any) -> None:
        if 2 in ids:
            raise ZeroDivisionError

    store.add_hook("after_update", broken, on_error="skip")
    store.add_hook("after_update", lambda table, _ids, _rows: called.append(table))
    for step, batch in enumerate((users(1), users(2), users(2)), start=1):
        train_step(store, step, batch, whole_grads(np.random.default_rng(), batch))
    assert called == ["users"] * 3
    first, second = store.hooks.stats()
    assert (first["calls"], first["skipped"], second["calls"], second["skipped"]) == (3, 2, 3, 0)
    assert "step 2, table 'users': ZeroDivisionError" in first["first_error"]
    assert store.hooks.skipped == 2


async def _asynchronous(_table: str, _ids: Any, _rows: Any) -> None: ...


@pytest.mark.parametrize(
    ("at", "call", "options", "why"),
    [
        ("after_updat", print, {}, "hooks run at before_update, after_update, before_evict"),
        ("after_update", lambda _table, _ids: None, {}, r"its signature is .* after_update\(table, ids, rows\)"),
        ("before_update", lambda *, table: table, {}, r"before_update\(table, ids, gradients\)"),
        ("before_evict", 5, {}, "a int cannot be called"),
        ("before_evict", _asynchronous, {}, "async"),
        ("before_evict", print, {"tables": ["user"]}, r"no table 'user'; the tables are \['users', 'items', 'words'\]"),
        ("before_evict", print, {"on_error": "ignore"}, "stop or skip"),
    ],
)
def test_a_hook_that_cannot_be_is_refused(store: Store, at: Any, call: Any, options: Any, why: str) -> None:
    with pytest.raises(BadHook, match=why):
        store.add_hook(at, call, **options)
    assert store.hooks.stats() == []


def test_hooks_are_there_from_the_first_batch_or_not_at_all(store: Store) -> None:
    store.release(reserve(store, 1, users(1)))
    with pytest.raises(RuntimeError, match="before the first batch"):
        store.add_hook("after_update", print)


def test_hooks_never_run_on_the_event_loop(store: Store) -> None:
    loops: list[Any] = []
    for at in ("before_update", "after_update"):
        store.add_hook(at, lambda _table, _ids, _rows: loops.append(asyncio._get_running_loop()))
    claim = reserve(store, 1, users(1))

    async def ask() -> None:
        store.update(claim, matrices(whole_grads(np.random.default_rng(), users(1))))

    with pytest.raises(RuntimeError, match="lane"):
        asyncio.run(ask())
    assert loops == []
