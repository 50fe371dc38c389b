"""What the store promises to the stages."""

from __future__ import annotations

import gc
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from cuda.plan import BatchIds
from pipeline.rows.version import pack_version
from pipeline.store import (
    BrokenFence,
    DramTier,
    L1TooSmall,
    OutOfStep,
    Store,
    TierFull,
    TierRows,
    UnknownTable,
)
from tests.store.jobs import (
    SPECS,
    batch_of,
    empty_outs,
    make_store,
    matrices,
    random_batch,
    reserve,
    train_step,
    whole_grads,
)
from tests.store.oracle import Oracle

DEADLINE_S = 60


@pytest.fixture
def store() -> Iterator[Store]:
    store = make_store()
    yield store
    store.close()


def users(*ids: int) -> BatchIds:
    """A batch of one sample that needs these rows of the first table."""
    return batch_of([[list(ids)], [[]], [[]], [[]]])


def state_of(store: Store) -> dict[str, int]:
    stats = store.stats()
    return {name: stats[name] for name in ("free", "loading", "clean", "dirty", "pinned") if stats[name]}


def test_rows_that_left_come_back_as_they_were_updated() -> None:
    random, oracle = np.random.default_rng(), Oracle(SPECS)
    store = make_store(l1_rows=40)
    for step in range(1, 40):
        batch = random_batch(random, 300, 3)
        grads = whole_grads(random, batch)
        reservation = reserve(store, step, batch)
        outs = empty_outs(batch)
        store.gather(reservation, matrices(outs))
        for out, expected in zip(outs, oracle.pooled(batch, step - 1), strict=True):
            assert out.tobytes() == expected.tobytes()
        oracle.train(step, batch, grads)
        store.update(reservation, matrices(grads))
        store.release(reservation)
    assert store.counters.evictions > 100
    store.close()


def test_a_batch_that_can_never_fit_is_refused_at_once_and_pins_nothing(store: Store) -> None:
    batch = users(*range(65))
    with pytest.raises(L1TooSmall, match="step 1 needs 65 distinct rows at once and L1 holds 64") as caught:
        store.try_reserve(1, batch, store.backend.deduplicate(batch))
    assert (caught.value.need, caught.value.l1_rows, caught.value.step) == (65, 64, 1)
    assert state_of(store) == {"free": 64}


@pytest.mark.parametrize("policy", ["lru", "lfu", "lookahead"])
def test_an_l1_of_exactly_one_batchs_need_works(policy: str) -> None:
    store = make_store(l1_rows=5, policy=policy)
    random = np.random.default_rng()
    for step in range(1, 30):
        batch = users(*random.choice(50, 5, replace=False).tolist())
        unique = store.backend.deduplicate(batch)
        reservation = reserve(store, step, batch)
        assert store.try_reserve(step + 1, users(60), store.backend.deduplicate(users(60))) is None
        store.update(reservation, matrices(whole_grads(random, batch)))
        store.release(reservation)
        assert unique.count == 5
    store.close()


def test_no_room_now_is_none_and_release_says_when_there_is_some() -> None:
    store, told = make_store(l1_rows=4), []
    store.on_room(lambda: told.append(store.stats()["pinned"]))
    first, second = reserve(store, 1, users(1, 2)), reserve(store, 2, users(2, 3))
    batch = users(4, 5)
    unique = store.backend.deduplicate(batch)
    before = store.stats()
    assert store.try_reserve(3, batch, unique) is None
    assert store.stats() == before | {"no_room": 1}
    store.release(first)
    assert told == [2]
    assert store.try_reserve(3, batch, unique) is not None
    store.release(second)
    store.close()


def test_a_row_that_was_never_updated_leaves_without_a_write() -> None:
    store = make_store(l1_rows=3)
    for step, row in enumerate(range(0, 30, 3), start=1):
        store.release(reserve(store, step, users(row, row + 1, row + 2)))
        store.skip_step(step)
    assert store.counters.evictions == 27
    assert store.counters.write_backs == store.tier.count("users") == 0
    store.close()


def test_a_dirty_row_is_in_the_tier_before_its_slot_is_given_away() -> None:
    """Seen from inside ``admit``: what is about to lose its slot can be read below, with its version."""
    store = make_store(l1_rows=2)
    random, batch = np.random.default_rng(), users(1, 2)
    train_step(store, 1, batch, whole_grads(random, batch))
    seen: list[Any] = []
    admit = store.backend.admit

    def watched(slots_m: Any, tables_m: Any, ids_m: Any) -> None:
        leaving = store.backend.pairs(slots_m)[1]
        seen.append((leaving.tolist(), store.tier.get("users", leaving).versions_n.tolist()))
        admit(slots_m, tables_m, ids_m)

    store.backend.admit = watched  # type: ignore[method-assign]
    reserve(store, 2, users(3, 4))
    assert [(sorted(ids), versions) for ids, versions in seen] == [([1, 2], [pack_version(1, 1)] * 2)]
    store.close()


def test_cleaning_ahead_writes_what_is_next_to_leave_and_nothing_twice() -> None:
    store, random = make_store(l1_rows=8, clean_ahead=0.5, policy="lru"), np.random.default_rng()
    for step in range(1, 5):
        batch = users(2 * step, 2 * step + 1)
        train_step(store, step, batch, whole_grads(random, batch))
    assert store.clean_ahead() == 4
    assert store.clean_ahead() == 0
    assert sorted(store.tier.ids("users").tolist()) == [2, 3, 4, 5]
    assert store.counters.cleaned_ahead == store.counters.write_backs == 4
    reserve(store, 5, users(90, 91, 92, 93))
    assert store.counters.write_backs == 4
    store.close()


def test_nothing_is_cleaned_ahead_while_slots_are_free(store: Store) -> None:
    batch = users(1, 2, 3)
    train_step(store, 1, batch, whole_grads(np.random.default_rng(), batch))
    assert store.clean_ahead() == 0


def test_a_pinned_row_is_not_cleaned() -> None:
    store, batch = make_store(l1_rows=3, clean_ahead=1.0), users(1, 2, 3)
    reservation = reserve(store, 1, batch)
    store.update(reservation, matrices(whole_grads(np.random.default_rng(), batch)))
    assert store.clean_ahead() == 0
    store.release(reservation)
    assert store.clean_ahead() == 3
    store.close()


def test_steps_are_reserved_and_written_in_order(store: Store) -> None:
    first, second = reserve(store, 1, users(1)), reserve(store, 2, users(2))
    with pytest.raises(OutOfStep, match="reservation of step 2 is out of order"):
        reserve(store, 2, users(3))
    grads = whole_grads(np.random.default_rng(), users(1))
    with pytest.raises(OutOfStep, match="write of step 2 is out of order: expected step 1"):
        store.update(second, matrices(grads))
    store.update(first, matrices(grads))
    store.update(second, matrices(grads))
    assert store.fence.step == 2


def test_listeners_hear_of_each_step_at_its_end_and_may_freeze_there(store: Store) -> None:
    heard: list[Any] = []
    dense: list[int] = []

    def listen(step: int, plan: Any) -> None:
        with store.freeze("all", blocking=False) as snapshot:
            heard.append(
                (step, None if plan is None else plan.unique.count, snapshot.step, snapshot.ids("users").tolist())
            )

    store.on_step(listen)
    batch = users(7, 7, 9)
    reservation = reserve(store, 1, batch)
    grads = whole_grads(np.random.default_rng(), batch)
    store.update(reservation, matrices(grads), dense_step=lambda: dense.append(store.fence.step))
    store.skip_step(2)
    assert heard == [(1, 2, 1, [7, 9]), (2, None, 2, [7, 9])]
    assert dense == [0]


def test_an_update_that_fails_breaks_the_fence(store: Store) -> None:
    batch = users(1)
    reservation = reserve(store, 1, batch)

    def fail() -> None:
        raise ValueError("the dense side failed")

    with pytest.raises(ValueError, match="the dense side failed"):
        store.update(reservation, matrices(whole_grads(np.random.default_rng(), batch)), dense_step=fail)
    with pytest.raises(BrokenFence, match="step 1 failed"):
        store.freeze("all", blocking=False)


def test_where_a_listener_fails_nobody_sees_that_steps_end(store: Store) -> None:
    """Listeners behind it, the stream's perhaps, have not heard of the step: a cut of it would lack its rows."""
    heard: list[int] = []

    def fail(_step: int, _plan: Any) -> None:
        raise ValueError("a listener failed")

    store.on_step(fail)
    store.on_step(lambda step, _plan: heard.append(step))
    with pytest.raises(ValueError, match="a listener failed"):
        store.skip_step(1)
    assert heard == []
    with pytest.raises(BrokenFence, match="step 1"):
        store.freeze("all", blocking=False)


def test_rows_that_have_not_come_cannot_be_looked_up(store: Store) -> None:
    first = store.try_reserve(1, users(1), store.backend.deduplicate(users(1)))
    second = store.try_reserve(2, users(1, 2), store.backend.deduplicate(users(1, 2)))
    assert first is not None
    assert second is not None
    store.read_misses(second)
    for reservation in (first, second):
        with pytest.raises(RuntimeError, match="the rows of step 1 were not loaded yet"):
            store.gather(reservation, matrices(empty_outs(users(1))))
    store.read_misses(first)
    store.gather(second, matrices(empty_outs(users(1))))


def test_a_reservation_is_released_once_and_of_no_use_afterwards(store: Store) -> None:
    batch = users(1)
    reservation = reserve(store, 1, batch)
    store.release(reservation)
    actions: list[Callable[[], None]] = [
        lambda: store.release(reservation),
        lambda: store.gather(reservation, matrices(empty_outs(batch))),
        lambda: store.update(reservation, matrices(whole_grads(np.random.default_rng(), batch))),
    ]
    for action in actions:
        with pytest.raises(RuntimeError, match="the rows of step 1 were released already"):
            action()


def test_a_reservation_that_was_never_loaded_can_be_released(store: Store) -> None:
    """A later batch may count on its rows."""
    first = store.try_reserve(1, users(1), store.backend.deduplicate(users(1)))
    second = store.try_reserve(2, users(1), store.backend.deduplicate(users(1)))
    assert first is not None
    assert second is not None
    store.release(first)
    outs = empty_outs(users(1))
    store.gather(second, matrices(outs))
    assert np.array_equal(outs[0][0], Oracle(SPECS).weights((0, 1), 0))


def test_forward_without_backward_leaks_nothing() -> None:
    store, random = make_store(l1_rows=48), np.random.default_rng(3)
    batches = [random_batch(random, 200, 2) for _ in range(50)]
    uniques = [store.backend.deduplicate(batch) for batch in batches]
    outs = [empty_outs(batch) for batch in batches]

    def forward(start: int, count: int) -> None:
        for step in range(start, start + count):
            reservation = store.try_reserve(step, batches[step % 50], uniques[step % 50])
            assert reservation is not None
            store.read_misses(reservation)
            store.gather(reservation, matrices(outs[step % 50]))
            store.release(reservation)
            store.clean_ahead()

    forward(1, 500)
    gc.collect()
    objects, memory = len(gc.get_objects()), resident_bytes()
    forward(501, 10_000)
    gc.collect()
    assert len(gc.get_objects()) - objects < 100
    assert resident_bytes() - memory < 4 << 20
    assert store.stats()["pinned"] == store.stats()["dirty"] == store.tier.count("users") == 0
    store.close()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_full_tier_stops_the_reservation_and_loses_nothing() -> None:
    oracle, random = Oracle(SPECS), np.random.default_rng()
    store = make_store(tier=DramTier(max_bytes=100), l1_rows=4)
    for step, batch in enumerate([users(1, 2), users(3, 4)], start=1):
        grads = whole_grads(random, batch)
        oracle.train(step, batch, grads)
        train_step(store, step, batch, grads)
    with pytest.raises(TierFull, match=r"store\.dram_bytes"):
        reserve(store, 3, users(5, 6, 7, 8))
    assert store.stats()["pinned"] == 0
    with store.freeze("all", blocking=True) as snapshot:
        assert snapshot.ids("users").tolist() == [1, 2, 3, 4]
        for row in (1, 2, 3, 4):
            assert snapshot.read("users", np.array([row])).rows_nb.tobytes() == oracle.at((0, row), 2)[1]
    store.release(reserve(store, 3, users(1, 4)))
    store.close()


class DictTier:
    """A user's own tier: bytes in dicts."""

    name = "dicts"

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def open(self, specs: Any) -> None:
        self.tables: dict[str, dict[int, tuple[bytes, int]]] = {spec.name: {} for spec in specs}
        self.widths = {spec.name: spec.layout.row_bytes for spec in specs}

    def get(self, table: str, ids_n: Any) -> TierRows:
        nothing = (bytes(self.widths[table]), 0)
        with self.lock:
            found = [self.tables[table].get(row, nothing) for row in ids_n.tolist()]
            held = np.array([row in self.tables[table] for row in ids_n.tolist()], dtype=np.bool_)
        rows = np.frombuffer(b"".join(row for row, _ in found), dtype=np.uint8).reshape(len(found), -1).copy()
        return TierRows(rows, np.array([version for _, version in found], dtype=np.int64), held)

    def put(self, table: str, ids_n: Any, rows_nb: Any, versions_n: Any) -> None:
        width = self.widths[table]
        with self.lock:
            for row_id, row, version in zip(ids_n.tolist(), rows_nb, versions_n.tolist(), strict=True):
                self.tables[table][row_id] = (row[:width].tobytes(), version)

    def delete(self, table: str, ids_n: Any) -> None:
        for row_id in ids_n.tolist():
            self.tables[table].pop(row_id, None)

    def holds(self, table: str, ids_n: Any) -> Any:
        with self.lock:
            return np.array([row in self.tables[table] for row in ids_n.tolist()], dtype=np.bool_)

    def ids(self, table: str) -> Any:
        with self.lock:
            return np.array(list(self.tables[table]), dtype=np.int64)

    def count(self, table: str) -> int:
        return len(self.tables[table])

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_users_own_tier_takes_the_dram_tiers_place() -> None:
    """The same training over both ends with the same rows."""
    ends = []
    for tier in (DictTier(), DramTier()):
        random = np.random.default_rng(5)
        store = make_store(tier=tier, l1_rows=40)
        for step in range(1, 60):
            batch = random_batch(random, 200, 3)
            train_step(store, step, batch, whole_grads(random, batch))
            store.clean_ahead()
        assert store.counters.write_backs > 50
        with store.freeze("all", blocking=True) as snapshot:
            ends.append(
                [(i := snapshot.ids(s.name)).tobytes() + snapshot.read(s.name, i).rows_nb.tobytes() for s in SPECS]
            )
        assert store.stats()["tier"] == tier.name
        store.close()
    assert ends[0] == ends[1]


def test_rows_of_a_checkpoint_are_there_for_the_first_batch(store: Store) -> None:
    random = np.random.default_rng()
    rows = random.integers(0, 100, (2, SPECS[0].layout.row_bytes), dtype=np.uint8)
    rows.view(np.float32)[:] = random.random((2, rows.shape[1] // 4), dtype=np.float32)
    versions = np.array([pack_version(1, 4), pack_version(1, 9)])
    store.load_rows("users", np.array([5, -1]), rows, versions)
    store.fence.begin_after(9)
    with store.freeze("all", blocking=True) as snapshot:
        assert snapshot.ids("users").tolist() == [-1, 5]
        assert snapshot.read("users", np.array([5, -1])).versions_n.tolist() == versions.tolist()
    outs = empty_outs(users(5))
    store.gather(reserve(store, 10, users(5)), matrices(outs))
    assert outs[0].tobytes() == rows[:1, :16].tobytes()
    with pytest.raises(RuntimeError, match="only before the first batch"):
        store.load_rows("users", np.array([6]), rows[:1], versions[:1])


def test_rows_of_a_table_that_is_not_there_are_refused(store: Store) -> None:
    with pytest.raises(UnknownTable, match=r"no table 'nobody'; the tables are \['users', 'items', 'words'\]"):
        store.load_rows("nobody", np.array([6]), SPECS[0].layout.empty(1), np.array([1]))


def test_a_batch_of_empty_bags_is_an_ordinary_step(store: Store) -> None:
    batch = batch_of([[[], []] for _ in range(4)])
    reservation = reserve(store, 1, batch)
    outs = empty_outs(batch)
    store.gather(reservation, matrices(outs))
    assert not outs[0].any()
    store.update(reservation, matrices(whole_grads(np.random.default_rng(), batch)))
    store.release(reservation)
    assert store.fence.step == 1


class Asked(DramTier):
    """Asked for rows table by table, like a disk: then queued batches are listened to."""

    get_rows = None  # type: ignore[assignment]


def test_hints_change_which_rows_leave() -> None:
    store = make_store(tier=Asked(), l1_rows=3, policy="lookahead")
    for step, row in enumerate((1, 2, 3), start=1):
        store.release(reserve(store, step, users(row)))
    store.expect(9, store.backend.deduplicate(users(1)))
    store.release(reserve(store, 4, users(4)))
    store.expect(10, store.backend.deduplicate(users(4)))
    store.release(reserve(store, 5, users(5)))
    resident = [row for row in range(1, 6) if store.backend.locate(*pair(row))[0] >= 0]
    assert resident == [1, 4, 5]
    store.close()


def test_a_hint_reaches_rows_that_come_in_after_it() -> None:
    store = make_store(tier=Asked(), l1_rows=3, policy="lookahead")
    store.expect(9, store.backend.deduplicate(users(1)))
    for step, row in enumerate((1, 2, 3, 4, 5), start=1):
        store.release(reserve(store, step, users(row)))
    assert store.backend.locate(*pair(1))[0] >= 0
    store.close()


def pair(row: int) -> tuple[Any, Any]:
    return np.array([0], dtype=np.int32), np.array([row], dtype=np.int64)


def test_stats_can_be_written_as_json_and_msgpack(store: Store) -> None:
    random = np.random.default_rng()
    train_step(store, 1, users(1, 2), whole_grads(random, users(1, 2)))
    store.release(reserve(store, 2, users(2, 3)))
    stats = store.stats()
    assert json.loads(json.dumps(stats)) == stats == msgpack.unpackb(msgpack.packb(stats))
    assert (stats["hits"], stats["misses"], stats["hit_rate"]) == (1, 3, 0.25)
    assert stats["initial_rows"] == 3


def test_two_threads_may_load_at_once_and_a_row_is_read_once() -> None:
    store = make_store()
    batches = [users(*range(start, start + 8)) for start in range(0, 48, 8)]
    reservations = [
        store.try_reserve(step, batch, store.backend.deduplicate(batch)) for step, batch in enumerate(batches, start=1)
    ]
    threads = [
        threading.Thread(target=store.read_misses, args=(reservation,))
        for reservation in reservations
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert store.counters.initial_rows == 48
    store.close()


async def test_the_event_loop_is_refused(store: Store) -> None:
    batch = users(1)
    nothing: Any = None
    calls: list[Callable[[], Any]] = [
        lambda: store.expect(1, nothing),
        lambda: store.try_reserve(1, batch, nothing),
        lambda: store.read_misses(nothing),
        lambda: store.gather(nothing, []),
        lambda: store.update(nothing, []),
        lambda: store.release(nothing),
        lambda: store.skip_step(1),
        lambda: store.clean_ahead(),
        lambda: store.freeze("all", blocking=False),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="event loop"):
            call()


def test_a_store_may_be_closed_twice() -> None:
    store = make_store()
    store.close()
    store.close()
