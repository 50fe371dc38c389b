"""train: the dense model forward and backward. Nothing is changed yet; hooks on the leaves record their gradients."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch

from cuda.plan import NONE, FeatureSet, Matrix
from pipeline.flow import Stage, StageContext
from pipeline.models.features import PooledFeatures
from pipeline.models.metrics import BinaryMetrics
from pipeline.models.optimizer import DenseOptimizer
from stages.errors import NotFiniteLoss
from stages.items import LookedUp, RawBatch, Trained


def _record(grads: dict[str, torch.Tensor], name: str, leaf: torch.Tensor) -> None:
    """A backward hook. It takes the accumulated gradient: holding the incoming one would make autograd copy it."""
    assert leaf.grad is not None
    grads[name] = leaf.grad


class Train(Stage):
    """Scores a batch, then runs backward. Progressive metrics: each batch is scored before it is trained on."""

    consumes = LookedUp
    produces = Trained
    needs = {
        "model": torch.nn.Module,
        "dense_optimizer": DenseOptimizer,
        "metrics": BinaryMetrics,
        "features": FeatureSet,
    }
    lane = "compute"

    async def open(self, context: StageContext) -> None:
        self._model: torch.nn.Module = context.resources["model"]
        self._optimizer: DenseOptimizer = context.resources["dense_optimizer"]
        self._metrics: BinaryMetrics = context.resources["metrics"]
        self._features: FeatureSet = context.resources["features"]

    def work(self, item: LookedUp) -> Trained:
        if item.features is None:
            return Trained(item.step, 0, None, ())
        grads = self._backward(item.step, item.raw, item.features)
        return Trained(item.step, item.raw.num_samples, item.reservation, self._matrices(grads))

    def _backward(self, step: int, raw: RawBatch, features: PooledFeatures) -> dict[str, torch.Tensor]:
        """dL/d leaf by leaf name ('' is the pooled leaf); a leaf the model does not use is absent."""
        grads: dict[str, torch.Tensor] = {}
        leaves = {"": features.pooled_bs} | {name: s.values_nd for name, s in features.sequences.items()}
        for name, leaf in leaves.items():
            leaf.register_post_accumulate_grad_hook(partial(_record, grads, name))  # type: ignore[no-untyped-call]
        self._optimizer.zero_grad()
        labels_b = torch.from_numpy(raw.labels_b)
        logits_b = self._model(features, torch.from_numpy(raw.dense_bd))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits_b, labels_b)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NotFiniteLoss(step, value, raw.cursor)
        self._metrics.add(logits_b.detach().numpy(), raw.labels_b)
        loss.backward()  # type: ignore[no-untyped-call]
        return grads

    def _matrices(self, grads: dict[str, torch.Tensor]) -> list[Matrix | None]:
        """One matrix per feature, in order: columns of the pooled leaf's gradient, or a sequence leaf's own."""
        matrices: list[Matrix | None] = []
        pooled = Matrix.of(grads[""].contiguous()) if "" in grads else None
        columns = 0
        for f, name in enumerate(self._features.names):
            if self._features.poolings_f[f] == NONE:
                matrices.append(Matrix.of(grads[name].contiguous()) if name in grads else None)
                continue
            dim = int(self._features.dims_f[f])
            matrices.append(None if pooled is None else pooled.columns(columns, dim))
            columns += dim
        return matrices

    def state(self) -> Any:
        return {"metrics": self._metrics.state()}

    def restore(self, state: Any) -> None:
        self._metrics.restore(state["metrics"])
