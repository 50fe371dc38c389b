"""All optimizers of embedding rows, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from cuda.backend import UpdateRule
from pipeline.optim.adagrad import ADAGRAD, ROWWISE_ADAGRAD, AdagradOptions, RowwiseAdagradOptions
from pipeline.optim.adam import (
    ADAM,
    LAMB,
    PARTIAL_ROWWISE_ADAM,
    PARTIAL_ROWWISE_LAMB,
    AdamOptions,
    LambOptions,
    PartialRowwiseAdamOptions,
    PartialRowwiseLambOptions,
)
from pipeline.optim.sgd import LARS_SGD, SGD, LarsSgdOptions, SgdOptions
from pipeline.optim.spec import OptimizerSpec
from pipeline.rows.layout import RowLayout

OptimizerOptions = Annotated[
    SgdOptions
    | AdagradOptions
    | RowwiseAdagradOptions
    | AdamOptions
    | PartialRowwiseAdamOptions
    | LambOptions
    | PartialRowwiseLambOptions
    | LarsSgdOptions,
    Field(discriminator="kind"),
]
_ALL = (SGD, ADAGRAD, ROWWISE_ADAGRAD, ADAM, PARTIAL_ROWWISE_ADAM, LAMB, PARTIAL_ROWWISE_LAMB, LARS_SGD)
OPTIMIZERS: Mapping[str, OptimizerSpec] = {spec.name: spec for spec in _ALL}


def layout_of(options: OptimizerOptions, dim: int, weights: str = "float32", states: str = "float32") -> RowLayout:
    """The row of a table of this dim under this optimizer: its weights, then the optimizer's states, of these dtypes.

    States that the optimizer keeps in float32 alone are our own bug here, see ``narrow_states``.
    """
    spec = OPTIMIZERS[options.kind]
    assert states == "float32" or spec.narrow_states, f"{spec.name} keeps its states in float32"
    return RowLayout(spec.columns(options, dim, weights, states))


def rule_of(options: OptimizerOptions) -> UpdateRule:
    """What a backend needs to update rows under this optimizer."""
    return OPTIMIZERS[options.kind].rule_of(options)
