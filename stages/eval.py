"""eval: score a held-out source on the rows and dense weights of one step's end, beside training.

Rows are read through a snapshot: nothing is admitted, counted or marked, and an unseen id answers with its initial row.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from pydantic import Field, field_validator

from cuda.plan import POOLINGS, BatchIds, FeatureSet, UniqueIds
from pipeline.flow import GraphError, Marker, Source, Stage, StageContext, StageOptions, find_stage
from pipeline.flow.nearest import listed, nearest
from pipeline.flow.run_info import RunInfo
from pipeline.models.features import PooledFeatures, SequenceFeature
from pipeline.models.metrics import BinaryMetrics
from pipeline.models.pooling import pool_rows
from pipeline.store import Snapshot, Store
from stages.batch_ids import batch_ids
from stages.items import RawBatch, Stepped

MOST_WAITING = 2
FINAL_REASONS = ("end", "limit")
POOLING_NAMES = {number: name for name, number in POOLINGS.items()}


class EvalOptions(StageOptions):
    every: int | None = Field(None, ge=1, description="steps between two evaluations; not set: at the end only")
    source: dict[str, Any] = Field(description="the held-out source: `use` and its options, as of a first stage")

    @field_validator("source")
    @classmethod
    def source_is_one(cls, source: dict[str, Any]) -> dict[str, Any]:
        make_source(source)
        return source


def make_source(described: Mapping[str, Any]) -> Source:
    """Build a source. Raises ValueError when `use` names none or its options are wrong."""
    options = dict(described)
    try:
        found = find_stage(str(options.pop("use", "csv")))
    except GraphError as error:
        raise ValueError(str(error)) from error
    if not issubclass(found, Source):
        raise ValueError(f"`use` names {found.__name__}, which is no source")
    known = found.Options.model_fields
    for key in (key for key in options if key not in known):
        raise ValueError(f"unknown key {key!r}{nearest(key, known)} Known keys: {listed(known)}")
    return found(found.Options.model_validate(options))


@dataclass(slots=True)
class Exam:
    """What one evaluation reads: frozen inside the fence of its step."""

    step: int
    snapshot: Snapshot
    dense: dict[str, torch.Tensor]


class Eval(Stage):
    """Scores a held-out source every so many steps and at the end; training goes on beside it."""

    Options = EvalOptions
    consumes = Stepped
    produces = Stepped
    needs = {
        "store": Store,
        "model": torch.nn.Module,
        "features": FeatureSet,
        "table_names": tuple,
        "eval_results": list,
        "run": RunInfo,
    }

    async def open(self, context: StageContext) -> None:
        self._context = context
        self._store: Store = context.resources["store"]
        self._model: torch.nn.Module = context.resources["model"]
        self._twin = copy.deepcopy(self._model).eval()
        self._features: FeatureSet = context.resources["features"]
        self._tables: tuple[str, ...] = context.resources["table_names"]
        self._results: list[dict[str, Any]] = context.resources["eval_results"]
        self._lane = context.lane("eval")
        self._exams: deque[Exam] = deque()
        self._waiting = asyncio.Semaphore(MOST_WAITING)
        self._turn = asyncio.Lock()
        if self.options.every is not None:
            self._store.on_step(self._at_fence)

    def _at_fence(self, step: int, _plan: Any) -> None:
        """On the compute lane, behind the last write of ``step`` and before the first of the next."""
        if step % self.options.every == 0:
            self._exams.append(self._freeze())

    def _freeze(self) -> Exam:
        dense = {name: value.detach().clone() for name, value in self._model.state_dict().items()}
        return Exam(self._store.fence.step, self._store.freeze("all", blocking=True, reason="eval"), dense)

    async def process(self, item: Stepped) -> Stepped:
        while self._exams and self._exams[0].step <= item.step:
            await self._waiting.acquire()
            self._context.spawn(partial(self._examine, self._exams.popleft()), f"eval of step {item.step}")
        return item

    async def mark(self, marker: Marker) -> None:
        if marker.reason not in FINAL_REASONS:
            return
        await self._waiting.acquire()
        await self._examine(await self._lane.run(self._store.fence.at, self._freeze))
        async with self._turn:
            """All evaluations before this one are done: turns are taken in order."""

    async def _examine(self, exam: Exam) -> None:
        source, metrics = make_source(self.options.source), BinaryMetrics()
        async with self._turn:
            try:
                await source.open(self._context)
                self._twin.load_state_dict(exam.dense)
                async for raw in source.items():
                    if raw.num_samples:
                        await self._lane.run(self._score, exam.snapshot, raw, metrics)
            finally:
                await source.close(None)
                await self._lane.run(exam.snapshot.close)
                self._waiting.release()
        self._results.append(
            {"step": exam.step, "samples": metrics.count, "log_loss": metrics.log_loss, "auc": metrics.auc}
        )

    def _score(self, snapshot: Snapshot, raw: RawBatch, metrics: BinaryMetrics) -> None:
        batch = batch_ids(raw, self._features)
        unique = self._store.backend.deduplicate(batch)
        with torch.inference_mode():
            features = pool_snapshot(snapshot, self._tables, batch, unique)
            logits_b = self._twin(features, torch.from_numpy(raw.dense_bd))
        metrics.add(logits_b.numpy(), raw.labels_b)


def pool_snapshot(snapshot: Snapshot, tables: tuple[str, ...], batch: BatchIds, unique: UniqueIds) -> PooledFeatures:
    """Pool a batch from the rows of a snapshot (same definitions as lookup; sums may round otherwise)."""
    weights_t = []
    for t, table in enumerate(tables):
        ids = unique.ids_u[unique.table_start_t[t] : unique.table_start_t[t + 1]]
        weights_t.append(torch.from_numpy(np.ascontiguousarray(snapshot.weights(table, ids))))
    pooled: list[torch.Tensor] = []
    names, dims, sequences = [], [], {}
    for f, name in enumerate(batch.features.names):
        start, end = int(batch.feature_start_f[f]), int(batch.feature_start_f[f + 1])
        t = int(batch.features.tables_f[f])
        inverse_n = torch.from_numpy(batch_positions(unique, start, end, t))
        weights_n = None if batch.weights_n is None else torch.from_numpy(batch.weights_n[start:end])
        offsets_b = batch.offsets_fb[f] - start
        pooling = POOLING_NAMES[int(batch.features.poolings_f[f])]
        out = pool_rows(weights_t[t], inverse_n, offsets_b, weights_n, pooling)
        if pooling == "none":
            sequences[name] = SequenceFeature(out, offsets_b)
            continue
        pooled.append(out)
        names.append(name)
        dims.append(out.shape[1])
    pooled_bs = torch.cat(pooled, dim=1) if pooled else torch.empty(batch.num_samples, 0)
    return PooledFeatures(tuple(names), tuple(dims), pooled_bs, sequences)


def batch_positions(unique: UniqueIds, start: int, end: int, table: int) -> Any:
    """int64 [n] position of each occurrence start..end among its table's distinct ids."""
    return unique.inverse_n[start:end].astype(np.int64) - int(unique.table_start_t[table])
