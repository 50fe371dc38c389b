"""train: the dense model forward and backward. Nothing is changed yet; hooks on the leaves record their gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from cuda.plan import NONE, FeatureSet, Matrix
from pipeline.flow import Stage, StageContext
from pipeline.models.features import PooledFeatures
from pipeline.models.optimizer import DenseOptimizer
from stages.errors import NotFiniteLoss
from stages.items import Float32s, LookedUp, RawBatch, Scores, Trained


class Train(Stage):
    """Runs the dense model forward and backward. Its logits go along, so that each batch is scored before it is trained on."""

    consumes = LookedUp
    produces = Trained
    needs = {
        "model": torch.nn.Module,
        "dense_optimizer": DenseOptimizer,
        "features": FeatureSet,
    }
    lane = "compute"

    async def open(self, context: StageContext) -> None:
        self._model: torch.nn.Module = context.resources["model"]
        self._optimizer: DenseOptimizer = context.resources["dense_optimizer"]
        features: FeatureSet = context.resources["features"]
        self._places_f = list(_places(features))

    def work(self, item: LookedUp) -> Trained:
        if item.features is None:
            return Trained(item.step, 0, None, ())
        grads, logits_b = self._backward(item.step, item.raw, item.features)
        scores = Scores(logits_b, item.raw.labels_b)
        return Trained(item.step, item.raw.num_samples, item.reservation, self._matrices(grads), scores)

    def _backward(self, step: int, raw: RawBatch, features: PooledFeatures) -> tuple[dict[str, torch.Tensor], Float32s]:
        """(dL/d leaf by leaf name, logits): '' is the pooled leaf; a leaf the model does not use is absent."""
        grads = features.record_gradients()
        self._optimizer.zero_grad()
        labels_b = torch.from_numpy(raw.labels_b)
        logits_b = self._model(features, torch.from_numpy(raw.dense_bd))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits_b, labels_b)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NotFiniteLoss(step, value, raw.cursor)
        loss.backward()  # type: ignore[no-untyped-call]
        return grads, logits_b.detach().numpy()

    def _matrices(self, grads: dict[str, torch.Tensor]) -> list[Matrix | None]:
        """One matrix per feature, in order: columns of the pooled leaf's gradient, or a sequence leaf's own."""
        pooled = Matrix.of(grads[""].contiguous()) if "" in grads else None
        return [
            (None if pooled is None else pooled.columns(start, dim))
            if start is not None
            else (Matrix.of(grads[name].contiguous()) if name in grads else None)
            for name, start, dim in self._places_f
        ]


def _places(features: FeatureSet) -> Iterator[tuple[str, int | None, int]]:
    """(name, first column in the pooled leaf, dim) of each feature; None for one with a leaf of its own."""
    columns = 0
    for name, pooling, dim in zip(features.names, features.poolings_f.tolist(), features.dims_f.tolist(), strict=True):
        yield name, None if pooling == NONE else columns, dim
        columns += 0 if pooling == NONE else dim
