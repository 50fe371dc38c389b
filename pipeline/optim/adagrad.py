"""Adagrad: with one accumulator per weight, and with one per row."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.optim.fields import Decay, Eps, Options
from pipeline.optim.spec import OptimizerSpec, per_row, per_weight

DECAY_MODES = ("none", "l2", "decoupled")


class AdagradOptions(Options):
    """m += g * g; w -= lr * g / (sqrt(m) + eps). The accumulators m begin at zero."""

    kind: Literal["adagrad"] = "adagrad"
    eps: Eps = 1e-8


class RowwiseAdagradOptions(Options):
    """m += mean(g * g); w -= lr / (sqrt(m) + eps) * g. The accumulator m begins at zero."""

    kind: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    eps: Eps = 1e-8
    weight_decay: Decay = 0.0
    decay: Annotated[
        Literal["none", "l2", "decoupled"],
        Field(description="l2: weight_decay * w is added to the gradient; decoupled: w shrinks by lr * weight_decay."),
    ] = "none"

    @property
    def decay_mode(self) -> int:
        """As kernels know it."""
        return DECAY_MODES.index(self.decay)

    @model_validator(mode="after")
    def _decay_is_of_a_kind(self) -> RowwiseAdagradOptions:
        if self.weight_decay and self.decay == "none":
            raise ValueError(f"weight_decay is {self.weight_decay}, but decay is none; choose l2 or decoupled")
        return self


ADAGRAD = OptimizerSpec(
    name="adagrad",
    options=AdagradOptions,
    hyper=("lr", "eps"),
    state_columns=lambda _options, dim: (per_weight("momentum", dim),),
    formula=(
        "m += g * g; w -= (lr * g) / (sqrt(m) + eps)    (EXACT_ADAGRAD of FBGEMM, codegen/genscript/optimizers.py; Duchi et al. 2011)"
    ),
)
ROWWISE_ADAGRAD = OptimizerSpec(
    name="rowwise_adagrad",
    options=RowwiseAdagradOptions,
    hyper=("lr", "eps", "weight_decay", "decay_mode"),
    state_columns=lambda _options, _dim: (per_row("momentum"),),
    formula=(
        "h = g + weight_decay * w (l2), else g; m += (sum of h[d] * h[d]) / dim; s = lr / (sqrt(m) + eps); w = c * w - s * g with "
        "c = 1 - s * weight_decay (l2), 1 - lr * weight_decay (decoupled), else 1    "
        "(EXACT_ROWWISE_ADAGRAD of FBGEMM, codegen/genscript/optimizers.py; Gupta et al. 2014, Duchi et al. 2011)"
    ),
    rule=lambda options: "rowwise_adagrad" if options.decay == "none" else "rowwise_adagrad_decayed",
)
