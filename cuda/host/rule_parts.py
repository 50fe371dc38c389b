"""The parts of update rules that go over a whole row, and where hyper-parameters lie.

Each part is a device function ``(row, state, gradient, hyper, a, b, dim)``; ``a`` and ``b`` are numbers of the row. What they mean
stands with each formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cuda.host.elementwise import WEIGHT, Lanes, Operands, change, sqrt, total

LR, EPS = 0, 1
DECAY, MODE = 2, 3
"""Of rules that are not of Adam's family."""
ETA, MOMENTUM = 1, 3
"""Of LARS."""
BETA1, BETA2, FAMILY_DECAY = 2, 3, 4
"""Of Adam's family, whose numbers below follow from these and from the step."""
REST1, REST2, BIAS1, BIAS2 = 5, 6, 7, 8


def follow_from(hyper: Sequence[float], step: int) -> tuple[float, float, float, float]:
    """Of Adam's family, REST1 to BIAS2: 1 - beta, and 1 - beta ** step, of the betas as float32, computed in float64."""
    betas = (float(np.float32(hyper[BETA1])), float(np.float32(hyper[BETA2])))
    return (1 - betas[0], 1 - betas[1], 1 - betas[0] ** step, 1 - betas[1] ** step)


def _first(x: Operands) -> Lanes:
    return x.hyper(BETA1) * x.state(0) + x.hyper(REST1) * x.gradient


def _second(x: Operands) -> Lanes:
    return x.hyper(BETA2) * x.state(1) + x.hyper(REST2) * (x.gradient * x.gradient)


def _decayed(x: Operands, direction: Lanes) -> Lanes:
    return direction + x.hyper(FAMILY_DECAY) * x.weight


def _adam(x: Operands) -> Mapping[int, Lanes]:
    """a, b: c1, c2"""
    m, v = _first(x), _second(x)
    direction = _decayed(x, (m / x.a) / (sqrt(v / x.b) + x.hyper(EPS)))
    return {0: m, 1: v, WEIGHT: x.weight - x.hyper(LR) * direction}


def _partial_adam(x: Operands) -> Mapping[int, Lanes]:
    """a: c1; b: sqrt(v / c2) + eps"""
    m = _first(x)
    return {0: m, WEIGHT: x.weight - x.hyper(LR) * _decayed(x, (m / x.a) / x.b)}


def _lamb_direction(x: Operands) -> Lanes:
    return _decayed(x, (x.state(0) / x.hyper(BIAS1)) / (sqrt(x.state(1) / x.hyper(BIAS2)) + x.hyper(EPS)))


def _partial_lamb_direction(x: Operands) -> Lanes:
    """a: 1 / (sqrt(v / c2) + eps)"""
    return _decayed(x, (x.state(0) / x.hyper(BIAS1)) * x.a)


def _adagrad(x: Operands) -> Mapping[int, Lanes]:
    m = x.state(0) + x.gradient * x.gradient
    return {0: m, WEIGHT: x.weight - (x.hyper(LR) * x.gradient) / (sqrt(m) + x.hyper(EPS))}


def _lars(x: Operands) -> Mapping[int, Lanes]:
    """a: the row's rate; b: momentum"""
    m = x.b * x.state(0) + x.a * (x.gradient + x.hyper(DECAY) * x.weight)
    return {0: m, WEIGHT: x.weight - m}


def _square(lanes: Lanes) -> Lanes:
    return lanes * lanes


adagrad = change(_adagrad)
adam = change(_adam)
partial_adam = change(_partial_adam)
moments = change(lambda x: {0: _first(x), 1: _second(x)})
first_moment = change(lambda x: {0: _first(x)})
lamb_squares = total(lambda x: _square(_lamb_direction(x)))
lamb = change(lambda x: {WEIGHT: x.weight - x.a * _lamb_direction(x)})
"""a: the rate, trust included"""
partial_lamb_squares = total(lambda x: _square(_partial_lamb_direction(x)))
partial_lamb = change(lambda x: {WEIGHT: x.weight - x.b * _partial_lamb_direction(x)})
"""b: the rate, trust included"""
lars = change(_lars)
decayed_squares = total(lambda x: _square(x.gradient + x.hyper(DECAY) * x.weight))
keep_and_subtract = change(lambda x: {WEIGHT: x.a * x.weight - x.b * x.gradient})
"""a: what is kept of the weights; b: the rate"""
