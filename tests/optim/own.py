"""A whole optimizer that the product does not have: RMSprop with momentum, corrected for the step, that counts a row's updates.

A spec, a rule of the host and nothing else: what a package of somebody's own holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from cuda.host import register_rule
from cuda.host.own_rules import NONE, WEIGHT, Lanes, Operands, change, load_float, sqrt, store_float
from pipeline.optim import OptimizerSpec, Options, per_row, per_weight

LR, EPS, RHO, BETA, REST, BIAS = range(6)


class RmspropOptions(Options):
    """v = rho * v + (1 - rho) * g * g; m = beta * m + g / (sqrt(v / (1 - rho ** t)) + eps); w -= lr * m"""

    kind: Literal["rmsprop"] = "rmsprop"
    eps: float = 1e-8
    rho: Annotated[float, Field(ge=0, lt=1, description="How much of the squares a step keeps.")] = 0.9
    beta: Annotated[float, Field(ge=0, lt=1, description="How much of the momentum a step keeps.")] = 0.5


def _change(x: Operands) -> dict[int, Lanes]:
    v = x.hyper(RHO) * x.state(0) + x.hyper(REST) * (x.gradient * x.gradient)
    m = x.hyper(BETA) * x.state(1) + x.gradient / (sqrt(v / x.hyper(BIAS)) + x.hyper(EPS))
    return {0: v, 1: m, WEIGHT: x.weight - x.hyper(LR) * m}


_rmsprop = change(_change)
ONE = np.float32(1.0)


def rmsprop(row: int, state: int, gradient: int, dim: int, hyper: int) -> None:
    _rmsprop(row, state, gradient, hyper, NONE, NONE, dim)
    updates = state + 8 * dim
    store_float(updates, load_float(updates) + ONE)


def of_the_step(hyper: Sequence[float], step: int) -> tuple[float, float]:
    """REST, BIAS"""
    return 1 - hyper[RHO], 1 - hyper[RHO] ** step


register_rule("rmsprop", rmsprop, per_weight=2, per_row=1, follow=of_the_step)
RMSPROP = OptimizerSpec(
    name="rmsprop",
    options=RmspropOptions,
    hyper=("lr", "eps", "rho", "beta"),
    state_columns=lambda _options, dim: (per_weight("square", dim), per_weight("momentum", dim), per_row("updates")),
    formula="Tieleman, Hinton 2012, with momentum and Adam's correction",
)
