"""Optimizers of embedding rows, as data."""

from pipeline.optim.adagrad import AdagradOptions, RowwiseAdagradOptions
from pipeline.optim.adam import AdamOptions, LambOptions, PartialRowwiseAdamOptions, PartialRowwiseLambOptions
from pipeline.optim.registry import OPTIMIZERS, OptimizerOptions, layout_of, rule_of
from pipeline.optim.sgd import LarsSgdOptions, SgdOptions
from pipeline.optim.spec import OptimizerSpec

__all__ = [
    "OPTIMIZERS",
    "AdagradOptions",
    "AdamOptions",
    "LambOptions",
    "LarsSgdOptions",
    "OptimizerOptions",
    "OptimizerSpec",
    "PartialRowwiseAdamOptions",
    "PartialRowwiseLambOptions",
    "RowwiseAdagradOptions",
    "SgdOptions",
    "layout_of",
    "rule_of",
]
