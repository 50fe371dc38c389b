"""update: sum gradients per row, run the fused optimizer on the slots, step the dense weights, pass the fence."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from pipeline.flow import Marker, Stage, StageContext
from pipeline.models.optimizer import DenseOptimizer
from pipeline.store import Store
from stages.items import Stepped, Trained


class TakesCheckpoints(Protocol):
    async def turn(self, marker: Marker) -> bool:
        """Whether ``marker`` becomes a checkpoint; waits for the one before where it must."""

    def freeze(self, marker: Marker) -> None:
        """Pin the state at the fence to it. On the compute lane."""


class Update(Stage):
    """The only stage that writes rows and dense weights, both inside one fence. Hooks run here too (``hooks:``): before_update ahead of
    the fence, after_update at the step's end. before_evict runs where slots are reserved, in ``prefetch``.
    """

    consumes = Trained
    produces = Stepped
    needs = {"store": Store, "dense_optimizer": DenseOptimizer, "checkpoints": TakesCheckpoints}
    lane = "compute"

    async def open(self, context: StageContext) -> None:
        self._store: Store = context.resources["store"]
        self._optimizer: DenseOptimizer = context.resources["dense_optimizer"]
        self._checkpoints: TakesCheckpoints = context.resources["checkpoints"]
        self._compute = context.lane("compute")

    def work(self, item: Trained) -> Stepped:
        if item.reservation is None:
            self._store.skip_step(item.step)
        else:
            dense_step = partial(self._optimizer.step, item.step)
            self._store.update(item.reservation, item.grads_f, dense_step=dense_step)
        return Stepped(item.step, item.num_samples, item.reservation, item.scores)

    async def mark(self, marker: Marker) -> None:
        """The checkpoint closes here, at the fence of the batch before the marker."""
        if await self._checkpoints.turn(marker):
            await self._compute.run(self._checkpoints.freeze, marker)
