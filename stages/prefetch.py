"""prefetch: reserve the slots of each batch in step order, and read missing rows into them ahead of their lookup.

Rows that come from a disk are read on two lanes of their own, batch after batch, while later batches are placed: so the disk is not
idle meanwhile. A batch goes on at once then, and its lookup waits for its rows (``Store.read_misses``). An error of such a read stops
the run.
``lookahead`` is an upper bound: where L1 has no room, the stage waits until a step gives some back.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from pydantic import Field

from cuda.plan import BatchIds, FeatureSet, UniqueIds
from pipeline.flow import Many, Marker, Stage, StageContext, StageOptions
from pipeline.flow.step_limit import StepLimit
from pipeline.store import L1TooSmall, Reservation, Store
from stages.batch_meta import whole_batch
from stages.errors import BatchDoesNotFit
from stages.items import DistinctBatch, RawBatch, SlotBatch
from stages.rebatch import pack, unpack
from stages.sources.samples import Samples
from stages.steps import StepSignal

LOAD_LANES = "load", "load_next"
"""The next batch's reads are under way when those of one batch come to their end: the disk's queue does not run dry between them."""


class PrefetchOptions(StageOptions):
    lookahead: int = Field(
        4, ge=1, le=1024, description="how many batches ahead of their lookup rows are made resident, at most"
    )
    max_ids: int | None = Field(
        None, ge=1, description="the most distinct ids one batch holds, if known: `check` then refuses a smaller L1"
    )


class Prefetch(Stage):
    """Reserves slots for each batch in step order and reads missing rows ahead of their lookup."""

    Options = PrefetchOptions
    consumes = RawBatch
    produces = SlotBatch
    needs = {"store": Store, "features": FeatureSet, "step_limit": StepLimit}

    def __init__(self, options: PrefetchOptions) -> None:
        super().__init__(options)
        self._step = 0
        self._left: list[RawBatch] = []
        """Batches behind the last step of the run: kept, so that a longer run can go on with them."""

    async def open(self, context: StageContext) -> None:
        self._context = context
        self._store: Store = context.resources["store"]
        self._step = self._store.fence.step
        self._features: FeatureSet = context.resources["features"]
        self._limit: StepLimit = context.resources["step_limit"]
        self._lane = context.lane("prefetch")
        self._load_lanes = [context.lane(name) for name in LOAD_LANES]
        self._signal = StepSignal(self._store)

    async def process(self, raw: RawBatch) -> SlotBatch | Many:
        if self._limit.reached(self._step):
            self._left.append(raw)
            return Many()
        return await self._place(raw)

    def waiting(self) -> Sequence[RawBatch]:
        """What a shorter run had left behind its last step."""
        left, self._left = self._left, []
        return left

    async def _place(self, raw: RawBatch) -> SlotBatch:
        step, reservation = self._step + 1, None
        if raw.num_samples:
            batch, unique = await self._distinct(raw)
            await self._wait_for_turn(step)
            reservation = await self._claim(step, raw, batch, unique)
            if self._store.loads_wait and not reservation.loaded:
                lane = self._load_lanes[step % len(self._load_lanes)]
                self._context.spawn(partial(lane.run, self._store.read_misses, reservation), f"load of step {step}")
        self._step = step
        if self._limit.reached(step):
            self._limit.stop("limit")
        return SlotBatch(step, raw, reservation)

    async def _distinct(self, raw: RawBatch) -> tuple[BatchIds, UniqueIds]:
        """What the stage ``distinct`` found, or what is found now."""
        if isinstance(raw, DistinctBatch):
            return raw.batch, raw.unique
        found: tuple[BatchIds, UniqueIds] = await self._lane.run(self._find_distinct, raw)
        return found

    def _find_distinct(self, raw: RawBatch) -> tuple[BatchIds, UniqueIds]:
        batch = whole_batch(raw, self._features)
        return batch, self._store.backend.deduplicate(batch)

    async def _wait_for_turn(self, step: int) -> None:
        """Step ``fence + 1`` is the one that computes; at most ``lookahead`` more may hold slots."""
        began = time.perf_counter()
        await self._signal.ended(step - 1 - self.options.lookahead)
        self._context.counters.add("waited_s", time.perf_counter() - began)

    async def _claim(self, step: int, raw: RawBatch, batch: BatchIds, unique: UniqueIds) -> Reservation:
        while True:
            self._signal.clear()
            try:
                reservation: Reservation | None = await self._lane.run(self._reserve_and_load, step, batch, unique)
            except L1TooSmall as error:
                raise BatchDoesNotFit(step, error.need, error.l1_rows, raw.cursor) from error
            if reservation is not None:
                return reservation
            began = time.perf_counter()
            await self._signal.wait()
            self._context.counters.add("waited_s", time.perf_counter() - began)

    def _reserve_and_load(self, step: int, batch: BatchIds, unique: UniqueIds) -> Reservation | None:
        reservation = self._store.try_reserve(step, batch, unique)
        if reservation is not None and not self._store.loads_wait:
            self._store.read_misses(reservation)
        return reservation

    async def mark(self, marker: Marker) -> None:
        """Every step before the marker was reserved and none behind it: what dynamic tables have counted is of the marker's step."""
        dynamic = self._store.dynamic
        if dynamic is not None:
            marker.attachments["dynamic"] = await self._lane.run(dynamic.state)

    def state(self) -> Any:
        return {"step": self._step, "left": [pack(Samples.of(batch)) for batch in self._left]}

    def restore(self, state: Any) -> None:
        self._step = max(int(state["step"]), self._store.fence.step)  # that counts steps that no batch was, too
        left = [unpack(packed) for packed in state["left"]]
        self._left = [RawBatch(s.num_samples, s.features, s.dense_bd, s.labels_b) for s in left]
