"""Distinct ids: the union of arrays beside plain sets."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rows.distinct import union

IDS = st.lists(st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-3, 3))


@given(st.lists(IDS, min_size=1, max_size=4))
def test_a_union_names_each_id_once_rising(pieces: list[list[int]]) -> None:
    found = union(*(np.array(piece, dtype=np.int64) for piece in pieces))
    assert found.tolist() == sorted({row_id for piece in pieces for row_id in piece})
    assert found.base is None, "what was merged away is kept alive"
