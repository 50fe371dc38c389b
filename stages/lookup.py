"""lookup: pool the rows of a batch from L1 into autograd leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field

from cuda.plan import NONE, BatchIds, FeatureSet, Matrix
from pipeline.flow import Stage, StageContext, StageOptions
from pipeline.models.features import PooledFeatures, SequenceFeature, aligned_empty
from pipeline.store import Store
from stages.items import LookedUp, SlotBatch, Stepped
from stages.steps import StepSignal


class LookupOptions(StageOptions):
    staleness: int = Field(
        0,
        ge=0,
        le=16,
        description="how many steps behind the rows may be; above 0 results depend on timing (G1 does not hold)",
    )


@dataclass(frozen=True, slots=True)
class Leaves:
    """The leaves of one batch, and the same memory as a backend sees it."""

    features: PooledFeatures
    outs_f: Sequence[Matrix]


class LeafBuffers:
    """Pooled outputs are as large in each step: a few buffers in turn save the page faults of fresh ones."""

    def __init__(self, features: FeatureSet, count: int) -> None:
        self._set = features
        pooled = [f for f, pooling in enumerate(features.poolings_f.tolist()) if pooling != NONE]
        self._names = tuple(features.names[f] for f in pooled)
        self._dims = tuple(int(features.dims_f[f]) for f in pooled)
        self._buffers: list[torch.Tensor | None] = [None] * count
        self._last: list[Leaves | None] = [None] * count
        self._next = 0

    def take(self, batch: BatchIds) -> Leaves:
        """Leaves, 64-byte aligned, valid until ``count`` more were taken. Where nothing but pooled features is asked for, a batch of
        the size of the one that had the buffer before gets its very leaf.
        """
        number, self._next = self._next, (self._next + 1) % len(self._buffers)
        last = self._last[number]
        if last is None or last.features.pooled_bs.shape[0] != batch.num_samples or last.features.sequences:
            last = self._last[number] = self._make(number, batch)
        return last

    def _make(self, number: int, batch: BatchIds) -> Leaves:
        buffer = self._buffers[number]
        if buffer is None or buffer.shape[0] < batch.num_samples:
            buffer = self._buffers[number] = aligned_empty((batch.num_samples, sum(self._dims)))
        pooled_bs = buffer[: batch.num_samples].detach().requires_grad_()
        outs_f: list[Matrix] = []
        sequences: dict[str, SequenceFeature] = {}
        pooled, columns = Matrix.of(pooled_bs), 0
        for f, name in enumerate(self._set.names):
            dim, start = int(self._set.dims_f[f]), int(batch.feature_start_f[f])
            if self._set.poolings_f[f] == NONE:
                values_nd = aligned_empty((int(batch.feature_start_f[f + 1]) - start, dim)).requires_grad_()
                outs_f.append(Matrix.of(values_nd))
                sequences[name] = SequenceFeature(values_nd, batch.offsets_fb[f] - start)
            else:
                outs_f.append(pooled.columns(columns, dim))
                columns += dim
        return Leaves(PooledFeatures(self._names, self._dims, pooled_bs, sequences), outs_f)


class Lookup(Stage):
    """Gathers and pools rows into leaves; with ``staleness: 0`` behind the fence of the previous step."""

    Options = LookupOptions
    consumes = SlotBatch
    produces = LookedUp
    needs = {"store": Store, "features": FeatureSet}
    lane = "compute"

    async def open(self, context: StageContext) -> None:
        self._store: Store = context.resources["store"]
        self._signal = StepSignal(self._store)
        self._buffers = LeafBuffers(context.resources["features"], self.options.staleness + 2)

    async def ready(self, item: SlotBatch) -> None:
        """Behind the fence of the step before."""
        await self._signal.ended(item.step - 1 - self.options.staleness)

    @classmethod
    def waits_in(cls, visit: tuple[type[Stage], ...]) -> bool:
        """Where the step ends in the same visit, the order of visits is the order of steps: there is nothing to wait for."""
        return not any(issubclass(stage.produces, Stepped) for stage in visit)

    def work(self, item: SlotBatch) -> LookedUp:
        if item.reservation is None:
            return LookedUp(item.step, item.raw, None, None)
        self._store.read_misses(item.reservation)
        leaves = self._buffers.take(item.reservation.plan.batch)
        self._store.gather(item.reservation, leaves.outs_f)
        return LookedUp(item.step, item.raw, item.reservation, leaves.features)
