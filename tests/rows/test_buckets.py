"""Buckets are splitmix64 of the id, modulo their number, the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rows.buckets import bucket_ids

WORD = 2**64 - 1


def mix(x: int) -> int:
    """Splitmix64 in whole numbers of Python's."""
    x = (x + 0x9E3779B97F4A7C15) & WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.integers(1, 2**40))
def test_a_bucket_is_the_mixed_id_modulo_their_number(ids: list[int], buckets: int) -> None:
    found = bucket_ids(np.array(ids, np.int64), buckets)
    assert found.dtype == np.int64
    assert found.tolist() == [mix(number & WORD) % buckets for number in ids]


def test_golden_values_stand() -> None:
    """The first number that splitmix64 gives for the seed 0 is e220a8397b1dcdaf in every implementation."""
    assert bucket_ids(np.array([0, 1, -1, 2**63 - 1]), 1000).tolist() == [535, 465, 936, 39]
    assert bucket_ids(np.array([0]), 2**40).tolist() == [0xE220A8397B1DCDAF % 2**40]


def test_no_bucket_is_refused() -> None:
    with pytest.raises(ValueError, match="there is at least one"):
        bucket_ids(np.array([0]), 0)
