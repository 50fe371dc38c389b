"""The update rules, one function each: change one row in place by its gradient. Formulas and their sources stand in ``pipeline.optim``.

Every operation is rounded to float32 on its own, in the order written. ``row`` and ``gradient`` are addresses; ``state`` is the
address of the row's first state column, its states lie one behind the other; ``hyper`` that of its hyper-parameters.
A new rule is a function here, its code in ``RULES`` and its line in ``apply``.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from cuda.host.compiled import device
from cuda.host.vector import dot, load_float, store_float, subtract_scaled

SGD: Final = 0
ROWWISE_ADAGRAD: Final = 1
RULES: Final = {"sgd": SGD, "rowwise_adagrad": ROWWISE_ADAGRAD}
STATE_FLOATS: Final = {"sgd": 0, "rowwise_adagrad": 1}
"""Floats of state that a rule keeps per row, beside those it keeps per weight (none so far)."""
MAX_HYPER: Final = 4


@device
def sgd(row: int, _state: int, gradient: int, dim: int, hyper: int) -> None:
    """w -= lr * g. Hyper: lr."""
    subtract_scaled(row, gradient, load_float(hyper), dim)


@device
def rowwise_adagrad(row: int, state: int, gradient: int, dim: int, hyper: int) -> None:
    """m += dot(g, g) / dim; w -= (lr / (sqrt(m) + eps)) * g. Hyper: lr, eps. State: m. ``dot`` in the order of ``vector.dot``."""
    momentum = load_float(state) + dot(gradient, gradient, dim) / np.float32(dim)
    store_float(state, momentum)
    subtract_scaled(row, gradient, load_float(hyper) / (math.sqrt(momentum) + load_float(hyper + 4)), dim)


@device
def apply(rule: int, row: int, state: int, gradient: int, dim: int, hyper: int) -> None:
    """Change one row by the rule with this code."""
    if rule == SGD:
        sgd(row, state, gradient, dim, hyper)
    elif rule == ROWWISE_ADAGRAD:
        rowwise_adagrad(row, state, gradient, dim, hyper)
