"""lookup: pool the rows of a batch from L1 into autograd leaves."""

from __future__ import annotations

from pydantic import Field

from cuda.plan import NONE, FeatureSet, Matrix
from pipeline.flow import Stage, StageContext, StageOptions
from pipeline.models.features import PooledFeatures, SequenceFeature, aligned_empty
from pipeline.store import Reservation, Store
from stages.items import LookedUp, SlotBatch, Stepped
from stages.steps import StepSignal


class LookupOptions(StageOptions):
    staleness: int = Field(
        0,
        ge=0,
        le=16,
        description="how many steps behind the rows may be; above 0 results depend on timing (G1 does not hold)",
    )


class LeafBuffers:
    """Pooled outputs are as large in each step: a few buffers in turn save the page faults of fresh ones."""

    def __init__(self, count: int) -> None:
        self._buffers: list[object] = [None] * count
        self._next = 0

    def take(self, rows: int, width: int):  # type: ignore[no-untyped-def]
        """A float32 tensor [rows, width], 64-byte aligned, valid until ``count`` more were taken."""
        buffer = self._buffers[self._next]
        if buffer is None or buffer.shape[0] < rows or buffer.shape[1] != width:  # type: ignore[attr-defined]
            buffer = self._buffers[self._next] = aligned_empty((rows, width))
        self._next = (self._next + 1) % len(self._buffers)
        return buffer[:rows].detach()  # type: ignore[index]


class Lookup(Stage):
    """Gathers and pools rows into leaves; with ``staleness: 0`` behind the fence of the previous step."""

    Options = LookupOptions
    consumes = SlotBatch
    produces = LookedUp
    needs = {"store": Store, "features": FeatureSet}
    lane = "compute"

    async def open(self, context: StageContext) -> None:
        self._store: Store = context.resources["store"]
        self._features: FeatureSet = context.resources["features"]
        pooled = [f for f, pooling in enumerate(self._features.poolings_f) if pooling != NONE]
        self._pooled_names = tuple(self._features.names[f] for f in pooled)
        self._pooled_dims = tuple(int(self._features.dims_f[f]) for f in pooled)
        self._signal = StepSignal(self._store)
        self._buffers = LeafBuffers(self.options.staleness + 2)

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
        return LookedUp(item.step, item.raw, item.reservation, self._gather(item.reservation, item.raw.num_samples))

    def _gather(self, reservation: Reservation, num_samples: int) -> PooledFeatures:
        batch, features = reservation.plan.batch, self._features
        pooled_bs = self._buffers.take(num_samples, sum(self._pooled_dims))
        sequences: dict[str, SequenceFeature] = {}
        outs: list[Matrix] = []
        pooled, columns = Matrix.of(pooled_bs), 0
        for f, name in enumerate(features.names):
            dim, start = int(features.dims_f[f]), int(batch.feature_start_f[f])
            if features.poolings_f[f] == NONE:
                values_nd = aligned_empty((int(batch.feature_start_f[f + 1]) - start, dim))
                outs.append(Matrix.of(values_nd))
                sequences[name] = SequenceFeature(values_nd, batch.offsets_fb[f] - start)
            else:
                outs.append(pooled.columns(columns, dim))
                columns += dim
        self._store.gather(reservation, outs)
        for leaf in (pooled_bs, *(sequence.values_nd for sequence in sequences.values())):
            leaf.requires_grad_()
        return PooledFeatures(self._pooled_names, self._pooled_dims, pooled_bs, sequences)
