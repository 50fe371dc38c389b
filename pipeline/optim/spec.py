"""What an optimizer is, as data: its options, the state columns of its rows, its kernel's rule and its formula. Runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel

from cuda.backend import UpdateRule
from pipeline.rows.layout import Column


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """One optimizer. ``rule`` names the function each backend has for it; ``hyper`` lists the options it takes, in its order."""

    name: str
    options: type[BaseModel]
    rule: str
    hyper: tuple[str, ...]
    state_columns: Callable[[int], tuple[Column, ...]]
    """Row dim -> the columns behind the weight."""
    formula: str

    def rule_of(self, options: Any) -> UpdateRule:
        """The rule with the options' values, rounded to float32 as every backend computes with them."""
        values = (float(np.float32(getattr(options, name))) for name in self.hyper)
        return UpdateRule(self.rule, tuple(values))
