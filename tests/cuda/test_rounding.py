"""Stochastic rounding loses nothing on average: ten million roundings, by the update of rows, of numbers anywhere between neighbours."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from cuda.backend import UpdateRule
from cuda.host import HostBackend
from cuda.plan import SUM, SlotPlan
from pipeline.rows import Column, Initializer, RowLayout, TableSpec
from pipeline.rows.narrow import narrow, widen
from tests.cuda import cases

ROWS, DIM, FEW = 10_000, 1000, 1000
"""``FEW`` rows where a step comes after another, or chance has no part."""
DEVIATIONS = 6.0
"""Chance leaves them once in 500 million runs."""
SUBNORMAL = 2.0**-15


class Rounder:
    """Rows that a step sets to given numbers: their weights are zero, and SGD subtracts the gradient."""

    def __init__(self, dtype: str, rows: int = ROWS) -> None:
        self.spec = TableSpec("t", RowLayout((Column("weight", dtype, DIM, "weight"),)), Initializer("zeros"), 5)
        self.backend = HostBackend(2)
        self.backend.open([self.spec], rows)
        made = cases.one_id_a_bag(cases.batch(np.random.default_rng(), [DIM], [0], [SUM], rows), range(rows))
        unique = self.backend.deduplicate(made)
        slots = np.arange(rows, dtype=np.int32)
        self.backend.admit(slots, unique.tables_u, unique.ids_u)
        self.plan = SlotPlan(made, unique, slots)

    def round(self, values_nd: npt.NDArray[np.float32], step: int) -> npt.NDArray[np.float32]:
        rows = len(values_nd)
        zeros = np.zeros((rows, self.backend.row_bytes), np.uint8)
        self.backend.write_rows(self.plan.slots_u, zeros, np.zeros(rows, np.int64))
        self.backend.update(self.plan, cases.matrices([-values_nd]), [UpdateRule("sgd", (1.0,))], step)
        rows_nb, _ = self.backend.read_rows(self.plan.slots_u)
        rounded: npt.NDArray[np.float32] = self.spec.layout.singles(rows_nb, "weight")
        return rounded


def neighbours(values_nd: npt.NDArray[np.float32], dtype: str) -> tuple[npt.NDArray[np.float64], ...]:
    """The nearest numbers of the format, nearer to zero and farther from it."""
    bits = narrow(values_nd, dtype)
    bits = bits - (np.abs(widen(bits, dtype)) > np.abs(values_nd)).astype(np.uint16)
    return tuple(widen(near, dtype).astype(np.float64) for near in (bits, bits + np.uint16(1)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("scale", [1.0, SUBNORMAL])
def test_ten_million_roundings_are_right_on_average(dtype: str, scale: float) -> None:
    random = np.random.default_rng()
    values = (scale * random.uniform(-1, 1, (ROWS, DIM))).astype(np.float32)
    rounded = Rounder(dtype).round(values, step=int(random.integers(1, 2**40))).astype(np.float64)
    low, high = neighbours(values, dtype)
    assert ((rounded == low) | (rounded == high)).all()
    share = (values - low) / (high - low)
    away = (rounded == high).astype(np.float64)
    check(away - share, share)
    for tenth in range(10):
        inside = (share >= tenth / 10) & (share < (tenth + 1) / 10) & (share > 0)
        check((away - share)[inside], share[inside])
    columns = (away - share).sum(axis=0) / np.sqrt((share * (1 - share)).sum(axis=0))
    assert np.abs(columns).max() < DEVIATIONS
    # neighbours in a row, and the same place in the next row, know nothing of each other
    scaled = (away - share) / np.sqrt(np.maximum(share * (1 - share), 1e-3))
    for product in (scaled[:, 1:] * scaled[:, :-1], scaled[:, 8:] * scaled[:, :-8], scaled[1:] * scaled[:-1]):
        assert abs(product.mean()) < DEVIATIONS / math.sqrt(product.size)


def check(errors: npt.NDArray[np.float64], share: npt.NDArray[np.float64]) -> None:
    """The sum of errors is within what chance allows it."""
    assert abs(errors.sum()) < DEVIATIONS * math.sqrt((share * (1 - share)).sum())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("num_rows", [FEW, pytest.param(ROWS, marks=pytest.mark.long)])
def test_many_small_steps_move_a_weight_as_far_as_they_sum_up_to(dtype: str, num_rows: int) -> None:
    """Each is a hundredth of the distance of neighbours: rounded to nearest, nothing would ever move."""
    rounder, count, distance = Rounder(dtype, num_rows), 300, {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    start = narrow(np.full((num_rows, DIM), 0.5, np.float32), dtype).view(np.uint8)
    rows = np.zeros((num_rows, rounder.backend.row_bytes), np.uint8)
    rows[:, : 2 * DIM] = start
    rounder.backend.write_rows(rounder.plan.slots_u, rows, np.zeros(num_rows, np.int64))
    gradient = cases.matrices([np.full((num_rows, DIM), -distance / 100, np.float32)])
    for step in range(1, count + 1):
        rounder.backend.update(rounder.plan, gradient, [UpdateRule("sgd", (1.0,))], step)
    rows, _ = rounder.backend.read_rows(rounder.plan.slots_u)
    moved = rounder.spec.layout.singles(rows, "weight").astype(np.float64) - 0.5
    deviation = distance * math.sqrt(count * 0.01 * 0.99)
    assert abs(moved.mean() - count * distance / 100) < DEVIATIONS * deviation / math.sqrt(num_rows * DIM)
    nearest = UpdateRule("sgd", (1.0,), rounding="nearest")
    rounder.backend.update(rounder.plan, gradient, [nearest], count + 1)
    again, _ = rounder.backend.read_rows(rounder.plan.slots_u)
    np.testing.assert_array_equal(again, rows)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_is_no_number_or_too_large_stays_so(dtype: str) -> None:
    """A NaN cannot come from a finite gradient, but weights may hold one; what lies beyond the largest number is infinite."""
    rounder = Rounder(dtype, FEW)
    values = np.zeros((FEW, DIM), np.float32)
    values[:, :2] = (3.4e38, -3.4e38)
    rounded = rounder.round(values, 1)
    largest = {"float16": np.inf, "bfloat16": 3.38e38}[dtype]
    assert (np.abs(rounded[:, :2]) >= largest).all()
    assert (np.signbit(rounded[:, :2]) == [[False, True]]).all()
    assert not rounded[:, 2:].any()
