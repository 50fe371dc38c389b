"""Adagrad with one accumulator per row."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.optim.spec import OptimizerSpec
from pipeline.rows.layout import Column


class RowwiseAdagradOptions(BaseModel):
    """m += mean(g * g); w -= lr / (sqrt(m) + eps) * g. The accumulator m begins at zero."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    lr: float = Field(default=0.01, gt=0, allow_inf_nan=False, description="Learning rate.")
    eps: float = Field(
        default=1e-8,
        ge=1e-30,
        allow_inf_nan=False,
        description="Added to the root, so that a row without gradient divides by no zero.",
    )


ROWWISE_ADAGRAD = OptimizerSpec(
    name="rowwise_adagrad",
    options=RowwiseAdagradOptions,
    rule="rowwise_adagrad",
    hyper=("lr", "eps"),
    state_columns=lambda _: (Column("momentum", "float32", 1, "state"),),
    formula=(
        "m += (sum of g[d] * g[d]) / dim; w -= (lr / (sqrt(m) + eps)) * g    (EXACT_ROWWISE_ADAGRAD of FBGEMM without weight decay, "
        "codegen/genscript/optimizers.py; Gupta et al. 2014, Duchi et al. 2011)"
    ),
)
