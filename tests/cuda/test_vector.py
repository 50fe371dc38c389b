"""Row arithmetic at raw addresses equals numpy's to the last bit, for every length, and touches nothing behind a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cuda.host import vector
from cuda.host.compiled import device
from tests.cuda.reference import Floats
from tests.cuda.reference import dot as reference_dot

DIMS = [*range(1, 40), 63, 64, 65, 128, 1000]
FACTOR = np.float32(0.3)
Floats2 = tuple[Floats, Floats]

copy, clear, scale, add = vector.copy, vector.clear, vector.scale, vector.add
add_scaled, subtract_scaled, divide, dot = vector.add_scaled, vector.subtract_scaled, vector.divide, vector.dot


@device
def run(number: int, target: int, source: int, factor: np.float32, dim: int) -> None:
    if number == 0:
        copy(target, source, factor, dim)
    elif number == 1:
        clear(target, source, factor, dim)
    elif number == 2:
        scale(target, source, factor, dim)
    elif number == 3:
        add(target, source, factor, dim)
    elif number == 4:
        add_scaled(target, source, factor, dim)
    elif number == 5:
        subtract_scaled(target, source, factor, dim)
    else:
        divide(target, source, factor, dim)


@device
def run_dot(left: int, right: int, dim: int) -> Any:
    return dot(left, right, dim)


EXPECTED: list[Callable[[Floats, Floats], Floats]] = [
    lambda _, source: source,
    lambda target, _: np.zeros_like(target),
    lambda _, source: FACTOR * source,
    lambda target, source: target + source,
    lambda target, source: target + FACTOR * source,
    lambda target, source: target - FACTOR * source,
    lambda target, _: target / FACTOR,
]
NAMES = ["copy", "clear", "scale", "add", "add_scaled", "subtract_scaled", "divide"]


def operands(dim: int) -> Floats2:
    random = np.random.default_rng()
    return tuple(random.standard_normal(dim + 20).astype(np.float32) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("number", range(len(EXPECTED)), ids=NAMES)
def test_row_operations_equal_numpy(number: int) -> None:
    for dim in DIMS:
        target, source = operands(dim)
        expected = target.copy()
        expected[3 : 3 + dim] = EXPECTED[number](target[3 : 3 + dim], source[1 : 1 + dim])
        run(number, target.ctypes.data + 12, source.ctypes.data + 4, FACTOR, dim)
        assert target.tobytes() == expected.tobytes(), dim


def test_a_dot_product_adds_16_lanes_and_then_halves() -> None:
    for dim in DIMS:
        left, right = operands(dim)
        found = np.float32(run_dot(left.ctypes.data + 4, right.ctypes.data + 8, dim))
        assert found.tobytes() == reference_dot(left[1 : 1 + dim], right[2 : 2 + dim]).tobytes(), dim


def test_nothing_is_fused_or_reassociated() -> None:
    target, source = np.full(16, 1.0, np.float32), np.full(16, 1.0 + 2.0**-12, np.float32)
    run(5, target.ctypes.data, source.ctypes.data, source[0], 16)
    fused = np.float32(1.0 - float(source[0]) ** 2)
    assert target[0] == np.float32(1.0) - source[0] * source[0] != fused
