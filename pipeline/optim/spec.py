"""What an optimizer is, as data: its options, the state columns of its rows, its kernel's rule and its formula. Runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cuda.backend import UpdateRule
from pipeline.optim.fields import Options
from pipeline.rows.layout import Column


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """One optimizer. ``hyper`` lists the options that its rules take, in their order."""

    name: str
    options: type[Options]
    hyper: tuple[str, ...]
    state_columns: Callable[[Any, int], tuple[Column, ...]]
    """(options, row dim) -> the columns behind the weight: those of a number per weight first."""
    formula: str
    narrow_states: bool = False
    """Whether the states of a number per weight may be bfloat16."""
    rule: Callable[[Any], str] | None = None
    """Options -> the name of the function each backend has for them, where that is not the optimizer's own name."""

    def rule_of(self, options: Any) -> UpdateRule:
        """The rule with the options' values, rounded to float32 as every backend computes with them."""
        values = tuple(float(np.float32(getattr(options, name))) for name in self.hyper)
        name = self.name if self.rule is None else self.rule(options)
        return UpdateRule(name, values, float(np.float32(options.max_norm)), float(np.float32(options.max_gradient)))

    def columns(self, options: Any, dim: int, weights: str, states: str) -> tuple[Column, ...]:
        """A row's columns with ``weights`` and states of a number per weight of these dtypes; those of one number stay float32."""
        kept = self.state_columns(options, dim)
        wide = dim > 1 and states != "float32"
        narrowed = (replace(column, dtype=states) if wide and column.width == dim else column for column in kept)
        return (Column("weight", weights, dim, "weight"), *narrowed)


def per_weight(name: str, dim: int) -> Column:
    """A state of one float32 per weight."""
    return Column(name, "float32", dim, "state")


def per_row(name: str) -> Column:
    """A state of one float32."""
    return Column(name, "float32", 1, "state")
