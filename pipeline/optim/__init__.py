"""Optimizers of embedding rows, as data."""

from pipeline.optim.adagrad import AdagradOptions, RowwiseAdagradOptions
from pipeline.optim.adam import AdamOptions, LambOptions, PartialRowwiseAdamOptions, PartialRowwiseLambOptions
from pipeline.optim.choosing import OptimizerOptions, layout_of, rule_of
from pipeline.optim.errors import OptimizerError
from pipeline.optim.fields import Options
from pipeline.optim.registry import OPTIMIZERS, register_optimizer
from pipeline.optim.sgd import LarsSgdOptions, SgdOptions
from pipeline.optim.spec import OptimizerSpec, per_row, per_weight

__all__ = [
    "OPTIMIZERS",
    "AdagradOptions",
    "AdamOptions",
    "LambOptions",
    "LarsSgdOptions",
    "OptimizerError",
    "OptimizerOptions",
    "OptimizerSpec",
    "Options",
    "PartialRowwiseAdamOptions",
    "PartialRowwiseLambOptions",
    "RowwiseAdagradOptions",
    "SgdOptions",
    "layout_of",
    "per_row",
    "per_weight",
    "register_optimizer",
    "rule_of",
]
