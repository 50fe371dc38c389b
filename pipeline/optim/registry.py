"""All optimizers of embedding rows, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from cuda.backend import UpdateRule
from pipeline.optim.rowwise_adagrad import ROWWISE_ADAGRAD, RowwiseAdagradOptions
from pipeline.optim.sgd import SGD, SgdOptions
from pipeline.optim.spec import OptimizerSpec
from pipeline.rows.layout import Column, RowLayout

OptimizerOptions = Annotated[SgdOptions | RowwiseAdagradOptions, Field(discriminator="kind")]
OPTIMIZERS: Mapping[str, OptimizerSpec] = {spec.name: spec for spec in (SGD, ROWWISE_ADAGRAD)}


def layout_of(options: OptimizerOptions, dim: int) -> RowLayout:
    """The row of a table of this dim under this optimizer: its weights, then the optimizer's states."""
    return RowLayout((Column("weight", "float32", dim, "weight"), *OPTIMIZERS[options.kind].state_columns(dim)))


def rule_of(options: OptimizerOptions) -> UpdateRule:
    """What a backend needs to update rows under this optimizer."""
    return OPTIMIZERS[options.kind].rule_of(options)
