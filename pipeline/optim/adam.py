"""Adam and LAMB, whole and with the second moment of a whole row. c1 = 1 - beta1 ** t, c2 = 1 - beta2 ** t; step t counts from 1.

Only rows of the batch change: a row that is not in it keeps its moments and does not decay.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.optim.fields import MOMENTS, AdamFamily
from pipeline.optim.spec import OptimizerSpec, per_row, per_weight
from pipeline.rows.layout import Column

_SOURCE = "of FBGEMM, codegen/genscript/optimizers.py"
_MOMENTS = "m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * (g * g)"
_ROW_MOMENTS = "m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * ((sum of g[d] * g[d]) / dim)"
_TRUST = "w -= (lr * (|w| / |u|)) * u, nothing where |u| is 0"


class AdamOptions(AdamFamily):
    """w -= lr * ((m / c1) / (sqrt(v / c2) + eps) + weight_decay * w)"""

    kind: Literal["adam"] = "adam"
    rowwise_bias_correction: Annotated[
        bool, Field(description="t counts the row's own updates, in a state of its own, not the steps of the run.")
    ] = False


class PartialRowwiseAdamOptions(AdamFamily):
    """Adam with one second moment per row: the mean of g * g."""

    kind: Literal["partial_rowwise_adam"] = "partial_rowwise_adam"


class LambOptions(AdamFamily):
    """Adam's direction u, scaled to the row: w -= lr * |w| / |u| * u. A row of zeros stays zero."""

    kind: Literal["lamb"] = "lamb"


class PartialRowwiseLambOptions(AdamFamily):
    """LAMB with one second moment per row: the mean of g * g."""

    kind: Literal["partial_rowwise_lamb"] = "partial_rowwise_lamb"


def _whole(_options: Any, dim: int) -> tuple[Column, ...]:
    return (per_weight("exp_avg", dim), per_weight("exp_avg_sq", dim))


def _of_adam(options: AdamOptions, dim: int) -> tuple[Column, ...]:
    return (*_whole(options, dim), *((per_row("row_counter"),) if options.rowwise_bias_correction else ()))


def _partial(_options: Any, dim: int) -> tuple[Column, ...]:
    return (per_weight("exp_avg", dim), per_row("exp_avg_sq"))


ADAM = OptimizerSpec(
    name="adam",
    options=AdamOptions,
    hyper=MOMENTS,
    narrow_states=True,
    state_columns=_of_adam,
    formula=f"{_MOMENTS}; w -= lr * ((m / c1) / (sqrt(v / c2) + eps) + weight_decay * w)    (ADAM {_SOURCE}; Kingma, Ba 2015)",
    rule=lambda options: "adam_rowwise_bias" if options.rowwise_bias_correction else "adam",
)
PARTIAL_ROWWISE_ADAM = OptimizerSpec(
    name="partial_rowwise_adam",
    options=PartialRowwiseAdamOptions,
    narrow_states=True,
    hyper=MOMENTS,
    state_columns=_partial,
    formula=f"{_ROW_MOMENTS}; w -= lr * ((m / c1) / (sqrt(v / c2) + eps) + weight_decay * w)    (PARTIAL_ROWWISE_ADAM {_SOURCE})",
)
LAMB = OptimizerSpec(
    name="lamb",
    options=LambOptions,
    hyper=MOMENTS,
    state_columns=_whole,
    formula=(
        f"{_MOMENTS}; u = (m / c1) / (sqrt(v / c2) + eps) + weight_decay * w; {_TRUST}    (LAMB {_SOURCE}, which gives NaN there; "
        "You et al. 2020)"
    ),
)
PARTIAL_ROWWISE_LAMB = OptimizerSpec(
    name="partial_rowwise_lamb",
    options=PartialRowwiseLambOptions,
    hyper=MOMENTS,
    state_columns=_partial,
    formula=(
        f"{_ROW_MOMENTS}; u = (m / c1) * (1 / (sqrt(v / c2) + eps)) + weight_decay * w; {_TRUST}    (PARTIAL_ROWWISE_LAMB {_SOURCE}, "
        "which gives NaN there)"
    ),
)
