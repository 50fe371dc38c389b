"""One training forward, and what its backward finds: a small state machine.

    OPEN      rows are looked up and pinned; their gradients are awaited
    UPDATED   backward has come: the rows are updated, the step has ended
    GIVEN_UP  the next training forward began, or the module was closed, before that: nothing was changed, it is no step

The autograd function hands over the gradients of all features at once, so there is one moment at which a step has everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from cuda.plan import NONE, BatchIds, FeatureSet, Float32s, Matrix
from pipeline.models.features import aligned_empty
from pipeline.modules.errors import BackwardTwice, GivenUp
from pipeline.store import Reservation

Update = Callable[["OpenStep", Sequence[Matrix | None], bool], Float32s | None]


class State(Enum):
    OPEN = "open"
    UPDATED = "updated"
    GIVEN_UP = "given up"


@dataclass(slots=True)
class Outputs:
    """Where a batch's rows are pooled to: all pooled features side by side, then a matrix for each unpooled one. 64-byte aligned."""

    tensors: tuple[torch.Tensor, ...]
    matrices_f: list[Matrix]
    places_f: list[tuple[int, int]]
    """(which tensor, first column in it) of each feature."""


def make_outputs(features: FeatureSet, batch: BatchIds) -> Outputs:
    dims, pooled_f = features.dims_f.tolist(), (features.poolings_f != NONE).tolist()
    width = sum(dim for dim, pooled in zip(dims, pooled_f, strict=True) if pooled)
    tensors = [aligned_empty((batch.num_samples, width))] if width else []
    matrices, places, column = [], [], 0
    for f, dim in enumerate(dims):
        if pooled_f[f]:
            matrices.append(Matrix.of(tensors[0]).columns(column, dim))
            places.append((0, column))
            column += dim
        else:
            count = int(batch.feature_start_f[f + 1] - batch.feature_start_f[f])
            tensors.append(aligned_empty((count, dim)))
            matrices.append(Matrix.of(tensors[-1]))
            places.append((len(tensors) - 1, 0))
    return Outputs(tuple(tensors), matrices, places)


class OpenStep:
    """``reservation`` carries the step's number; None for a batch without samples. ``update`` ends it."""

    def __init__(self, number: int, reservation: Reservation | None, batch: BatchIds, outputs: Outputs, update: Update):
        self.number, self.reservation, self.batch, self.outputs = number, reservation, batch, outputs
        self.state = State.OPEN
        self._update = update

    def backward(self, grads: Sequence[torch.Tensor | None], wanted_f: Sequence[bool]) -> list[torch.Tensor | None]:
        """Given dL/d of each tensor of ``outputs``, end the step. Returns dL/d weights of the features where it is wanted.

        Raises BackwardTwice, GivenUp, and what the store raises.
        """
        if self.state is State.UPDATED:
            raise BackwardTwice(self.number)
        if self.state is State.GIVEN_UP:
            raise GivenUp
        kept = [None if grad is None else grad.contiguous() for grad in grads]
        found = [None if grad is None else Matrix.of(grad) for grad in kept]
        features = self.batch.features
        grads_f: list[Matrix | None] = []
        for f, (number, column) in enumerate(self.outputs.places_f):
            matrix = found[number]
            grads_f.append(None if matrix is None else matrix.columns(column, int(features.dims_f[f])))
        weights_n = self._update(self, grads_f, any(wanted_f))
        self.state = State.UPDATED
        starts = self.batch.feature_start_f.tolist()
        return [
            torch.from_numpy(weights_n[starts[f] : starts[f + 1]].copy()) if wanted and weights_n is not None else None
            for f, wanted in enumerate(wanted_f)
        ]


class Rows(torch.autograd.Function):
    """The outputs of a step, as functions of its rows. ``anchor`` is there because autograd needs something that requires gradients."""

    @staticmethod
    def forward(
        ctx: Any, step: OpenStep, _anchor: torch.Tensor, *_weights_f: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.step = step
        return step.outputs.tensors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        return None, None, *ctx.step.backward(grads, ctx.needs_input_grad[2:])
