"""Plain stochastic gradient descent."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.optim.spec import OptimizerSpec


class SgdOptions(BaseModel):
    """w -= lr * g"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.01, gt=0, allow_inf_nan=False, description="Learning rate.")


SGD = OptimizerSpec(
    name="sgd",
    options=SgdOptions,
    rule="sgd",
    hyper=("lr",),
    state_columns=lambda _: (),
    formula="w -= lr * g    (EXACT_SGD of FBGEMM, codegen/genscript/optimizers.py, without its fused multiply-add)",
)
