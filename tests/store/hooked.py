"""A walk with hooks at every place, against a plain dict: what its sabotages and its tests share. It asserts inside."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.store import HookPoint, Store
from tests.store.jobs import SPECS, TABLE_NAMES, matrices, random_batch, whole_grads
from tests.store.oracle import Oracle

POINTS: tuple[HookPoint, ...] = ("before_update", "after_update", "before_evict")
NUMBERS = {name: number for number, name in enumerate(TABLE_NAMES)}


class Told:
    """What hooks were told, in order: (place, table, id, step, bytes of the row's weights or gradient). Two hooks at each place."""

    def __init__(self, store: Store) -> None:
        self.events: list[tuple[str, str, int, int, bytes]] = []
        self.store = store
        self._waiting: list[tuple[str, str, int]] = []
        for at in POINTS:
            store.add_hook(at, getattr(self, at))
            store.add_hook(at, self._second(at))

    def before_update(self, table: str, ids: Any, gradients: Any) -> None:
        assert gradients.dtype == np.float32
        assert gradients.shape == (len(ids), SPECS[NUMBERS[table]].dim)
        self._note("before_update", table, ids, np.full(len(ids), self.store.fence.step + 1), gradients)

    def after_update(self, table: str, ids: Any, rows: Any) -> None:
        assert rows.step == self.store.fence.step
        assert rows.updated_n.all()
        assert (rows.versions_n2 == (1, rows.step)).all()
        self._note("after_update", table, ids, rows.versions_n2[:, 1], rows.weights_nd)

    def before_evict(self, table: str, ids: Any, rows: Any) -> None:
        slots = self.store.backend.locate(np.full(len(ids), NUMBERS[table], np.int32), np.array(ids))
        assert (slots >= 0).all(), "the rows have left already"
        self._note("before_evict", table, ids, rows.versions_n2[:, 1], rows.weights_nd)

    def _second(self, at: str) -> Any:
        def behind(table: str, ids: Any, _values: Any) -> None:
            assert self._waiting == [(at, table, len(ids))], "not behind the hook that was added first"
            self._waiting.clear()

        return behind

    def _note(self, at: str, table: str, ids: Any, steps: Any, values: Any) -> None:
        assert ids.dtype == np.int64
        assert len(set(ids.tolist())) == len(ids) > 0
        assert not self._waiting
        self._waiting.append((at, table, len(ids)))
        for row_id, step, value in zip(ids.tolist(), steps.tolist(), values, strict=True):
            self.events.append((at, table, row_id, step, value.tobytes()))


def walk(store: Store, ahead: int) -> None:
    """Every hook of a step runs before any row of it leaves, and each row that leaves is told of once, still there, as its last step
    left it. ``ahead``: batches that are reserved beforehand, where L1 has room.
    """
    random, oracle, told = np.random.default_rng(), Oracle(SPECS), Told(store)
    batches = [random_batch(random, 60, 2) for _ in range(80)]
    grads = [whole_grads(random, batch) for batch in batches]
    for step, (batch, some) in enumerate(zip(batches, grads, strict=True), start=1):
        oracle.train(step, batch, some)
    _run(store, batches, grads, ahead)
    evicted = _check_values(told, oracle)
    updated = [event[:4] for event in told.events if event[0] == "after_update"]
    assert [(table, i, s) for _, table, i, s in updated] == [
        (table, i, s) for at, table, i, s, _ in told.events if at == "before_update"
    ]
    assert len(updated) == sum(store.backend.deduplicate(batch).count for batch in batches)
    assert evicted == store.counters.evictions > 0
    assert not store.hooks.skipped


def _run(store: Store, batches: list[Any], grads: list[Any], ahead: int) -> None:
    reserved: list[Any] = []
    for step in range(1, len(batches) + 1):
        while len(reserved) < min(step + ahead, len(batches)):
            batch = batches[len(reserved)]
            claim = store.try_reserve(len(reserved) + 1, batch, store.backend.deduplicate(batch))
            if claim is None:
                break
            store.read_misses(claim)
            reserved.append(claim)
        store.update(reserved[step - 1], matrices(grads[step - 1]))
        store.release(reserved[step - 1])
        store.clean_ahead()


def _check_values(told: Told, oracle: Oracle) -> int:
    """How many rows left."""
    last: dict[tuple[str, int], tuple[int, bytes]] = {}
    evicted = 0
    for at, table, row_id, step, value in told.events:
        pair, key = (NUMBERS[table], row_id), (table, row_id)
        if at == "before_update":
            before = oracle.weights(pair, step - 1) - np.frombuffer(value, np.float32)
            assert before.tobytes() == oracle.weights(pair, step).tobytes()
        elif at == "after_update":
            assert value == oracle.weights(pair, step).tobytes()
            last[key] = (step, value)
        else:
            evicted += 1
            assert last.get(key, (0, oracle.weights(pair, 0).tobytes())) == (step, value)
    return evicted
