"""Stochastic gradient descent: plain, and with a rate for each row (LARS)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.optim.fields import Decay, Options
from pipeline.optim.spec import OptimizerSpec, per_weight


class SgdOptions(Options):
    """w -= lr * g"""

    kind: Literal["sgd"] = "sgd"


class LarsSgdOptions(Options):
    """a = lr * eta * |w| / (|g| + weight_decay * |w|); m = momentum * m + a * (g + weight_decay * w); w -= m"""

    kind: Literal["lars_sgd"] = "lars_sgd"
    eta: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="Share of a row's length that a step moves it.")
    ] = 0.001
    momentum: Annotated[
        float, Field(ge=0, lt=1, allow_inf_nan=False, description="How much of its step a row keeps.")
    ] = 0.9
    weight_decay: Decay = 0.0


SGD = OptimizerSpec(
    name="sgd",
    options=SgdOptions,
    hyper=("lr",),
    state_columns=lambda _options, _dim: (),
    formula="w -= lr * g    (EXACT_SGD of FBGEMM, codegen/genscript/optimizers.py, without its fused multiply-add)",
)
LARS_SGD = OptimizerSpec(
    name="lars_sgd",
    options=LarsSgdOptions,
    hyper=("lr", "eta", "weight_decay", "momentum"),
    state_columns=lambda _options, dim: (per_weight("momentum", dim),),
    formula=(
        "a = (lr * eta * |w|) / (|g| + weight_decay * |w|), 0 where that is 0 / 0; m = momentum * m + a * (g + weight_decay * w); "
        "w -= m    (LARS_SGD of FBGEMM, codegen/genscript/optimizers.py, which gives NaN there; You et al. 2017)"
    ),
)
