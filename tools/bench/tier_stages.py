"""What stands around the built-in stages in the benchmarks of tiers: made-up ids, and one gradient in place of a model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import torch
from pydantic import Field

from pipeline.flow import Source, Stage, StageContext, StageOptions
from stages.items import FeatureIds, LookedUp, RawBatch, Trained
from tools.bench.lookup_rowstream import aligned, columns_of
from tools.bench.lookup_work import BATCH, TABLES, Work, make_gradient, make_work

NAMES = tuple(f"t{table}" for table in range(TABLES))


class MadeIdsOptions(StageOptions):
    distribution: str = Field(description="as in lookup_work")
    steps: int = Field(description="batches that are made; then they come again, in the same order")


class MadeIds(Source):
    """The batches of ``lookup_work``, without end."""

    Options = MadeIdsOptions
    produces = RawBatch

    async def open(self, context: StageContext) -> None:
        options = self.options
        self._work: Work = await context.lane("source").run(make_work, options.distribution, options.steps)

    async def items(self) -> AsyncIterator[RawBatch]:
        offsets_b = np.arange(BATCH + 1, dtype=np.int64)
        dense_bd, labels_b = np.empty((BATCH, 0), np.float32), np.zeros(BATCH, np.float32)
        step = 0
        while True:
            ids_tb = self._work.steps_sn[step % len(self._work.steps_sn)].reshape(TABLES, BATCH)
            features = {name: FeatureIds(ids_b, offsets_b) for name, ids_b in zip(NAMES, ids_tb, strict=True)}
            yield RawBatch(BATCH, features, dense_bd, labels_b)
            step += 1


class OneGradient(Stage):
    """In place of ``train``: the gradient of ``lookup_work``, the same for each batch."""

    consumes = LookedUp
    produces = Trained
    lane = "compute"

    async def open(self, context: StageContext) -> None:  # noqa: ARG002
        self._columns = columns_of(aligned(make_gradient()))

    def work(self, item: LookedUp) -> Trained:
        return Trained(item.step, item.raw.num_samples, item.reservation, self._columns)


class NoModel(torch.nn.Module):
    """Has no weights and is never called."""

    def __init__(self, inputs: Any) -> None:  # noqa: ARG002
        super().__init__()
