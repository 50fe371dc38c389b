"""Optimizers of embedding rows, as data."""

from pipeline.optim.registry import OPTIMIZERS, OptimizerOptions, layout_of, rule_of
from pipeline.optim.rowwise_adagrad import RowwiseAdagradOptions
from pipeline.optim.sgd import SgdOptions
from pipeline.optim.spec import OptimizerSpec

__all__ = [
    "OPTIMIZERS",
    "OptimizerOptions",
    "OptimizerSpec",
    "RowwiseAdagradOptions",
    "SgdOptions",
    "layout_of",
    "rule_of",
]
