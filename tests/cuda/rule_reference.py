"""The update rules in plain numpy, one row at a time, each float32 operation rounded on its own in the order of ``cuda/host/rules.py``."""

from __future__ import annotations

import numpy as np

from cuda.backend import UpdateRule
from pipeline.rows.spec import TableSpec
from tests.cuda.reference import Floats, dot

F = np.float32


def apply_rule(rule: UpdateRule, spec: TableSpec, row: Floats, gradient: Floats, step: int) -> Floats:
    """The packed row, as float32, after the rule."""
    dim = spec.dim
    lr, *rest = (F(value) for value in rule.hyper)
    w, states = row[:dim].copy(), row[dim:].copy()
    if rule.rule == "sgd":
        w -= lr * gradient
    elif rule.rule == "adagrad":
        states[:dim] += gradient * gradient
        w -= (lr * gradient) / (np.sqrt(states[:dim]) + rest[0])
    elif rule.rule.startswith("rowwise_adagrad"):
        w = _rowwise_adagrad(lr, rest, w, states, gradient)
    elif rule.rule == "lars_sgd":
        w = _lars(lr, rest, w, states, gradient)
    else:
        w = _family(rule.rule, lr, rest, w, states, gradient, step)
    norm, most = np.sqrt(dot(w, w)), F(rule.max_norm)
    if 0 < most < norm:
        w = (most / norm) * w
    return np.concatenate([w, states])


def _rowwise_adagrad(lr: F, rest: list[F], w: Floats, states: Floats, g: Floats) -> Floats:
    eps, decay, mode = rest
    h = g + decay * w if mode == 1 else g
    states[0] += dot(h, h) / F(len(w))
    step = lr / (np.sqrt(states[0]) + eps)
    kept = {0: F(1), 1: F(1) - step * decay, 2: F(1) - lr * decay}[int(mode)]
    after: Floats = kept * w - step * g
    return after


def _lars(lr: F, rest: list[F], w: Floats, states: Floats, g: Floats) -> Floats:
    eta, decay, momentum = rest
    norm, slope = np.sqrt(dot(w, w)), np.sqrt(dot(g, g))
    below = slope + decay * norm
    rate = lr * eta * norm / below if below > 0 else F(0)
    states[: len(w)] = momentum * states[: len(w)] + rate * (g + decay * w)
    return w - states[: len(w)]


def _family(name: str, lr: F, rest: list[F], w: Floats, states: Floats, g: Floats, step: float) -> Floats:
    eps, beta1, beta2, decay = rest
    rest1, rest2, dim = F(1 - float(beta1)), F(1 - float(beta2)), len(w)
    m = states[:dim]
    m[:] = beta1 * m + rest1 * g
    if name == "adam_rowwise_bias":
        states[2 * dim] += F(1)
        step = float(states[2 * dim])
    bias1, bias2 = (F(1 - float(beta) ** step) for beta in (beta1, beta2))
    if name.startswith("partial"):
        states[dim] = beta2 * states[dim] + rest2 * (dot(g, g) / F(dim))
        root = np.sqrt(states[dim] / bias2) + eps
    else:
        v = states[dim : 2 * dim]
        v[:] = beta2 * v + rest2 * (g * g)
        root = np.sqrt(v / bias2) + eps
    scaled = (m / bias1) * (F(1) / root) if name == "partial_rowwise_lamb" else (m / bias1) / root
    direction: Floats = scaled + decay * w
    if "lamb" in name:
        squares = dot(direction, direction)
        lr = lr * (np.sqrt(dot(w, w)) / np.sqrt(squares)) if squares > 0 else F(0)
    after: Floats = w - lr * direction
    return after
