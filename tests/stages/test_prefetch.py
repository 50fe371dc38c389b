"""Rows from a disk are read beside the reservations of later batches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from pipeline.flow.counters import StageCounters
from pipeline.flow.lanes import Lanes
from pipeline.flow.step_limit import StepLimit
from pipeline.rows.version import pack_version
from pipeline.store import DramTier, Store, TierRows
from pipeline.store.tier import Int64s
from stages.items import FeatureIds, RawBatch, SlotBatch
from stages.prefetch import Prefetch
from tests.stages.driving import context_of
from tests.store.jobs import FEATURES, SPECS, make_store

DEADLINE_S = 60


class Slow(DramTier):
    """A tier that reads when it may: a disk, as the store sees it."""

    gets_at_once = 2
    get_rows = None  # type: ignore[assignment]  # asked for rows table by table

    def __init__(self) -> None:
        super().__init__()
        self.may_read, self.failing = threading.Event(), False

    def get(self, table: str, ids_n: Int64s) -> TierRows:
        assert self.may_read.wait(DEADLINE_S)
        if self.failing:
            raise OSError("no such disk")
        return super().get(table, ids_n)


@pytest.fixture
def tier() -> Slow:
    return Slow()


def batch_of_user(number: int) -> RawBatch:
    """One sample that needs one row of the first table."""
    none, one = np.array([0, 0]), np.array([0, 1])
    features = {name: FeatureIds(np.empty(0, np.int64), none) for name in FEATURES.names}
    features["f0"] = FeatureIds(np.array([number]), one)
    return RawBatch(1, features, np.empty((1, 0), np.float32), np.zeros(1, np.float32))


def place(store: Store, numbers: Sequence[int], then: Callable[[list[SlotBatch]], None]) -> None:
    """Give a prefetch stage these batches; ``then`` is called, on a thread, when it has passed all of them on."""

    async def go() -> None:
        with Lanes() as lanes:
            async with asyncio.TaskGroup() as group:
                stage = Prefetch(Prefetch.Options(lookahead=4))
                resources = {"store": store, "features": FEATURES, "step_limit": StepLimit(None)}
                await stage.open(replace(context_of(lanes, group, StageCounters()), resources=resources))
                placed = [await stage.process(batch_of_user(number)) for number in numbers]
                await lanes.get("test").run(then, placed)

    asyncio.run(asyncio.wait_for(go(), DEADLINE_S))


def test_batches_are_placed_while_the_disk_reads_and_have_their_rows_when_load_returns(tier: Slow) -> None:
    store = make_store(tier)
    rows_nb = np.arange(3, dtype=np.uint8)[:, None].repeat(SPECS[0].layout.row_bytes, axis=1)
    store.load_rows(SPECS[0].name, np.arange(3), rows_nb, np.full(3, pack_version(1, 0)))
    seen: list[int] = []

    def look(placed: list[SlotBatch]) -> None:
        tier.may_read.set()
        for batch in placed:
            assert batch.reservation is not None
            store.read_misses(batch.reservation)
            seen.append(int(store.backend.read_rows(batch.reservation.plan.slots_u)[0][0, 0]))

    place(store, [2, 0, 1], look)
    assert seen == [2, 0, 1]
    store.close()


def test_a_read_that_fails_beside_stops_the_run(tier: Slow) -> None:
    store = make_store(tier)
    tier.failing = True
    with pytest.raises(ExceptionGroup) as raised:
        place(store, [1], lambda _placed: tier.may_read.set())
    assert raised.group_contains(OSError, match="no such disk")
    store.close()


def test_rows_out_of_memory_are_there_when_the_batch_goes_on() -> None:
    store = make_store(DramTier())
    loaded: list[bool] = []
    place(store, [1], lambda placed: loaded.extend(batch.reservation.loaded for batch in placed if batch.reservation))
    assert loaded == [True]
    store.close()
