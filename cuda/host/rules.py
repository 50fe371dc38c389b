"""The update rules, one function each: change one row in place by its gradient. Formulas and their sources stand in ``pipeline.optim``.

Every operation is rounded to float32 on its own, in the order written. ``row`` and ``gradient`` are addresses; ``state`` is the
address of the row's first state column, its states lie one behind the other, those of a number per weight first; ``hyper`` that of
its hyper-parameters. A new rule is a function here and its line in ``RULES``, or anywhere else and ``register_rule``.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from cuda.host import rule_parts as parts
from cuda.host.compiled import device
from cuda.host.machine import call_rule
from cuda.host.rule_parts import BETA1, BETA2, BIAS1, BIAS2, DECAY, ETA, LR, MODE, MOMENTUM, follow_from
from cuda.host.rule_table import CALLED, RuleTable
from cuda.host.vector import dot, load_float, store_float, subtract_scaled

SGD, ROWWISE_ADAGRAD = range(CALLED)
"""The rules that are a part of every kernel; others are called at the address of their code."""
L2, DECOUPLED = 1.0, 2.0
"""Values of MODE; 0: no decay."""
NONE = np.float32(0.0)


@device
def _hyper(hyper: int, number: int) -> float:
    return load_float(hyper + 4 * number)  # type: ignore[no-any-return]


@device
def sgd(row: int, _state: int, gradient: int, dim: int, hyper: int) -> None:
    """w -= lr * g"""
    subtract_scaled(row, gradient, load_float(hyper), dim)


@device
def adagrad(row: int, state: int, gradient: int, dim: int, hyper: int) -> None:
    """m += g * g; w -= (lr * g) / (sqrt(m) + eps)"""
    parts.adagrad(row, state, gradient, hyper, NONE, NONE, dim)


@device
def rowwise_adagrad(row: int, state: int, gradient: int, dim: int, hyper: int) -> None:
    """m += dot(g, g) / dim; w -= (lr / (sqrt(m) + eps)) * g. ``dot`` in the order of ``vector.dot``."""
    momentum = load_float(state) + dot(gradient, gradient, dim) / np.float32(dim)
    store_float(state, momentum)
    subtract_scaled(row, gradient, load_float(hyper) / (math.sqrt(momentum) + load_float(hyper + 4)), dim)


@device
def rowwise_adagrad_decayed(row: int, state: int, gradient: int, dim: int, hyper: int) -> None:
    """h = g + decay * w (L2), else g; m += dot(h, h) / dim; s = lr / (sqrt(m) + eps); c = 1 - s * decay (L2), 1 - lr * decay
    (decoupled), else 1; w = c * w - s * g.
    """
    mode, decay, lr = _hyper(hyper, MODE), _hyper(hyper, DECAY), _hyper(hyper, LR)
    squares = dot(gradient, gradient, dim)
    if mode == L2:
        squares = parts.decayed_squares(row, state, gradient, hyper, NONE, NONE, dim)
    momentum = load_float(state) + squares / np.float32(dim)
    store_float(state, momentum)
    step = lr / (math.sqrt(momentum) + load_float(hyper + 4))
    kept = np.float32(1.0)
    if mode == L2:
        kept = np.float32(1.0) - step * decay
    elif mode == DECOUPLED:
        kept = np.float32(1.0) - lr * decay
    parts.keep_and_subtract(row, state, gradient, hyper, kept, step, dim)


@device
def adam(row: int, state: int, gradient: int, dim: int, hyper: int) -> None:
    """m = b1 * m + (1 - b1) * g; v = b2 * v + (1 - b2) * (g * g); w -= lr * ((m / c1) / (sqrt(v / c2) + eps) + decay * w)"""
    parts.adam(row, state, gradient, hyper, _hyper(hyper, BIAS1), _hyper(hyper, BIAS2), dim)


@device
def adam_rowwise_bias(row: int, state: int, gradient: int, dim: int, hyper: int) -> None:
    """``adam`` with c1 and c2 of the row's own updates, which its last state counts."""
    counter = state + 8 * dim
    updates = load_float(counter) + np.float32(1.0)
    store_float(counter, updates)
    parts.adam(
        row, state, gradient, hyper, _bias(_hyper(hyper, BETA1), updates), _bias(_hyper(hyper, BETA2), updates), dim
    )


@device
def _bias(beta: float, updates: float) -> np.float32:
    """1 - beta ** updates, in float64 until the end."""
    return np.float32(1.0 - math.pow(np.float64(beta), np.float64(updates)))


@device
def _mean_square(state: int, gradient: int, dim: int, hyper: int) -> float:
    """v = b2 * v + (1 - b2) * (dot(g, g) / dim), behind the row's other state; returns v / c2."""
    squares = dot(gradient, gradient, dim) / np.float32(dim)
    value = _hyper(hyper, BETA2) * load_float(state + 4 * dim) + _hyper(hyper, parts.REST2) * squares
    store_float(state + 4 * dim, value)
    return value / _hyper(hyper, BIAS2)  # type: ignore[no-any-return]


@device
def partial_rowwise_adam(row: int, state: int, gradient: int, dim: int, hyper: int) -> None:
    """v of the whole row (``_mean_square``); m as Adam's; w -= lr * ((m / c1) / (sqrt(v / c2) + eps) + decay * w)"""
    root = math.sqrt(_mean_square(state, gradient, dim, hyper)) + load_float(hyper + 4)
    parts.partial_adam(row, state, gradient, hyper, _hyper(hyper, BIAS1), root, dim)


@device
def _trust(row: int, squares: float, dim: int, hyper: int) -> np.float32:
    """lr * (norm(w) / norm(u)); 0 for a direction u of no length, which leaves the row as it is."""
    if squares == 0:
        return np.float32(0.0)
    return np.float32(_hyper(hyper, LR) * (math.sqrt(dot(row, row, dim)) / math.sqrt(squares)))


@device
def lamb(row: int, state: int, gradient: int, dim: int, hyper: int) -> None:
    """m, v as Adam's; u = (m / c1) / (sqrt(v / c2) + eps) + decay * w; w -= (lr * (norm(w) / norm(u))) * u"""
    parts.moments(row, state, gradient, hyper, NONE, NONE, dim)
    squares = parts.lamb_squares(row, state, gradient, hyper, NONE, NONE, dim)
    parts.lamb(row, state, gradient, hyper, _trust(row, squares, dim, hyper), NONE, dim)


@device
def partial_rowwise_lamb(row: int, state: int, gradient: int, dim: int, hyper: int) -> None:
    """v of the whole row; s = 1 / (sqrt(v / c2) + eps); m as Adam's; u = (m / c1) * s + decay * w; then as ``lamb``"""
    root = math.sqrt(_mean_square(state, gradient, dim, hyper)) + load_float(hyper + 4)
    inverse = np.float32(1.0) / root
    parts.first_moment(row, state, gradient, hyper, NONE, NONE, dim)
    squares = parts.partial_lamb_squares(row, state, gradient, hyper, inverse, NONE, dim)
    parts.partial_lamb(row, state, gradient, hyper, inverse, _trust(row, squares, dim, hyper), dim)


@device
def lars_sgd(row: int, state: int, gradient: int, dim: int, hyper: int) -> None:
    """a = (lr * eta * norm(w)) / (norm(g) + decay * norm(w)), 0 where that divides by 0; m = momentum * m + a * (g + decay * w);
    w -= m
    """
    norm, slope = math.sqrt(dot(row, row, dim)), math.sqrt(dot(gradient, gradient, dim))
    below = slope + _hyper(hyper, DECAY) * norm
    rate = np.float32(0.0)
    if below > 0:
        rate = np.float32(_hyper(hyper, LR) * _hyper(hyper, ETA) * norm / below)
    parts.lars(row, state, gradient, hyper, rate, _hyper(hyper, MOMENTUM), dim)


@device
def apply(rule: int, row: int, state: int, gradient: int, dim: int, hyper: int) -> None:
    """Change one row by the rule with this code, see ``rule_table``."""
    if rule == SGD:
        sgd(row, state, gradient, dim, hyper)
    elif rule == ROWWISE_ADAGRAD:
        rowwise_adagrad(row, state, gradient, dim, hyper)
    else:
        call_rule(rule, row, state, gradient, dim, hyper)


RULES: Final = RuleTable()
RULES.add_inlined("sgd", SGD)
RULES.add_inlined("rowwise_adagrad", ROWWISE_ADAGRAD, per_row=1)
for _name, _function, _per_weight, _per_row in (
    ("adagrad", adagrad, 1, 0),
    ("rowwise_adagrad_decayed", rowwise_adagrad_decayed, 0, 1),
    ("lars_sgd", lars_sgd, 1, 0),
):
    RULES.add(_name, _function, _per_weight, _per_row)
for _name, _function, _per_weight, _per_row in (
    ("adam", adam, 2, 0),
    ("adam_rowwise_bias", adam_rowwise_bias, 2, 1),
    ("partial_rowwise_adam", partial_rowwise_adam, 1, 1),
    ("lamb", lamb, 2, 0),
    ("partial_rowwise_lamb", partial_rowwise_lamb, 1, 1),
):
    RULES.add(_name, _function, _per_weight, _per_row, follow_from)
