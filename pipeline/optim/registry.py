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
from pipeline.rows.layout import Column, RowLayout

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


def layout_of(options: OptimizerOptions, dim: int) -> RowLayout:
    """The row of a table of this dim under this optimizer: its weights, then the optimizer's states."""
    return RowLayout(
        (Column("weight", "float32", dim, "weight"), *OPTIMIZERS[options.kind].state_columns(options, dim))
    )


def rule_of(options: OptimizerOptions) -> UpdateRule:
    """What a backend needs to update rows under this optimizer."""
    return OPTIMIZERS[options.kind].rule_of(options)
