"""Numbers of 16 bits: every one of them widens exactly, and narrowing takes the nearest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rows import Column, Initializer, RowLayout, TableSpec
from pipeline.rows.initial import initial_rows, initial_weights
from pipeline.rows.narrow import narrow, widen
from tests.cuda.narrow_reference import round_to
from tests.cuda.narrow_reference import widen as widened

NARROW = ["float16", "bfloat16"]
LARGEST = {"float16": 65504.0, "bfloat16": 3.38e38}


def same(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(left.view(np.uint32), right.view(np.uint32))


@pytest.mark.parametrize("dtype", NARROW)
def test_every_number_survives_the_way_there_and_back(dtype: str) -> None:
    bits = np.arange(65536, dtype=np.uint16).reshape(4, -1)
    singles = widen(bits, dtype)
    numbers = ~np.isnan(singles)
    assert numbers.sum() > 60000
    same(singles[numbers], widened(bits, dtype)[numbers])
    np.testing.assert_array_equal(narrow(singles, dtype)[numbers], bits[numbers])
    back = widen(narrow(singles, dtype), dtype)
    assert np.isnan(back[~numbers]).all()
    np.testing.assert_array_equal(np.signbit(back), np.signbit(singles))


@pytest.mark.parametrize("dtype", NARROW)
@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_narrowing_takes_the_nearest_and_of_two_the_even_one(dtype: str, values: list[float]) -> None:
    singles = np.array([value for value in values if abs(value) <= LARGEST[dtype]], np.float32).reshape(1, -1)
    np.testing.assert_array_equal(narrow(singles, dtype), round_to(singles, dtype, None))


@pytest.mark.parametrize("dtype", NARROW)
def test_halves_between_two_neighbours_go_to_the_even_one(dtype: str) -> None:
    bits = np.random.default_rng().integers(0, 0x7B00, (1, 10000)).astype(np.uint16)
    between = ((widen(bits, dtype).astype(np.float64) + widen(bits + np.uint16(1), dtype)) / 2).astype(np.float32)
    found = narrow(between, dtype)
    assert ((found == bits) | (found == bits + 1)).all()
    assert (found % 2 == 0).all()


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("initializer", [Initializer("uniform", -1.0, 1.0), Initializer("normal", std=1e-6)])
def test_initial_rows_are_those_of_float32_rounded_to_nearest(dtype: str, initializer: Initializer) -> None:
    ids = np.random.default_rng().integers(-(2**63), 2**63 - 1, 100)
    exact, spec = (
        TableSpec("t", RowLayout((Column("weight", kept, 7, "weight"),)), initializer, 11)
        for kept in ("float32", dtype)
    )
    weights = initial_weights(spec, ids)
    same(weights, widen(narrow(initial_weights(exact, ids), dtype), dtype))
    rows = initial_rows(spec, ids)
    assert rows.shape == (100, 16)
    same(spec.layout.singles(rows, "weight"), weights)
    assert not rows[:, 14:].any()
