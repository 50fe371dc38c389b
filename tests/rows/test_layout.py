"""Layouts, table names and versions."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.rows import Column, Initializer, RowLayout, TableSpec, pack_version, steps_of, unpack_versions
from pipeline.rows.version import MAX_GENERATION, MAX_STEP


def test_columns_begin_at_their_item_size_and_rows_are_padded_to_16() -> None:
    layout = RowLayout(
        (
            Column("weight", "float32", 3, "weight"),
            Column("moment", "float64", 2, "state"),
            Column("count", "uint8", 1, "meta"),
        )
    )
    assert layout.offsets == {"weight": 0, "moment": 16, "count": 32}
    assert (layout.row_bytes, layout.dim, [column.name for column in layout.states]) == (48, 3, ["moment"])


def test_views_share_memory_with_rows_also_where_rows_are_longer() -> None:
    layout = RowLayout((Column("weight", "float32", 3, "weight"), Column("momentum", "float32", 1, "state")))
    rows = np.zeros((4, 64), dtype=np.uint8)
    layout.view(rows, "weight")[:] = [[1, 2, 3]]
    layout.view(rows, "momentum")[:] = 9
    assert rows.view(np.float32)[:, :5].tolist() == [[1, 2, 3, 9, 0]] * 4
    with pytest.raises(KeyError, match="no column 'nothing'; this layout has"):
        layout.view(rows, "nothing")


def test_wrong_layouts_and_names_are_refused() -> None:
    weight = Column("weight", "float32", 3, "weight")
    for columns in ((), (Column("state", "float32", 1, "state"),), (weight, weight)):
        with pytest.raises(ValueError, match="starts with its weight column"):
            RowLayout(columns)
    with pytest.raises(ValueError, match="at least one number wide"):
        RowLayout((weight, Column("none", "float32", 0, "state")))
    for name in ("", "a b", "ü", "x" * 129):
        with pytest.raises(ValueError, match="does not match"):
            TableSpec(name, RowLayout((weight,)), Initializer(), 0)


def test_versions_sort_as_pairs_do_and_unpack() -> None:
    pairs = [(0, 0), (0, 1), (0, MAX_STEP), (1, 0), (2, 5), (MAX_GENERATION, MAX_STEP)]
    versions = np.array([pack_version(*pair) for pair in pairs], dtype=np.int64)
    assert (np.diff(versions) > 0).all()
    assert unpack_versions(versions).tolist() == [list(pair) for pair in pairs]
    assert steps_of(versions).tolist() == [step for _, step in pairs]
    for pair in ((-1, 0), (0, -1), (MAX_GENERATION + 1, 0), (0, MAX_STEP + 1)):
        with pytest.raises(ValueError, match="the limits are"):
            pack_version(*pair)
