"""distinct: find the distinct ids of batches that still wait for their slots, and tell the store what is to come.

Optional. It runs ahead of prefetch by as much as the channel between the two holds: the policy ``lookahead`` then knows which rows
queued batches need, and prefetch finds its ids de-duplicated.
"""

from __future__ import annotations

from typing import Any

from cuda.plan import FeatureSet
from pipeline.flow import Stage, StageContext
from pipeline.store import Store
from stages.batch_meta import whole_batch
from stages.items import DistinctBatch, RawBatch


class Distinct(Stage):
    """De-duplicates ids and hints at the rows that queued batches need."""

    consumes = RawBatch
    produces = DistinctBatch
    needs = {"store": Store, "features": FeatureSet}
    lane = "prefetch"

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._step = 0

    async def open(self, context: StageContext) -> None:
        self._store: Store = context.resources["store"]
        self._step = self._store.fence.step
        self._features: FeatureSet = context.resources["features"]

    def work(self, raw: RawBatch) -> DistinctBatch:
        self._step += 1
        batch = whole_batch(raw, self._features)
        unique = self._store.backend.deduplicate(batch)
        self._store.expect(self._step, unique)
        return DistinctBatch(
            raw.num_samples, raw.features, raw.dense_bd, raw.labels_b, raw.cursor, raw.first_row, batch, unique
        )

    def state(self) -> Any:
        return {"step": self._step}

    def restore(self, state: Any) -> None:
        self._step = max(int(state["step"]), self._store.fence.step)
