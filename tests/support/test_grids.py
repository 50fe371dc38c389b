"""A grid runs the points that are named and leaves the others to the long form."""

from __future__ import annotations

import pytest

from tests.support.grids import grid


def test_points_that_are_not_named_are_left_to_the_long_form() -> None:
    points = grid("ab", [1, 2], always=[("a", 2), ("b", 1)])
    assert [point.values for point in points] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert [[mark.name for mark in point.marks] for point in points] == [["long"], [], [], ["long"]]


@pytest.mark.parametrize(("always", "named"), [([("a", 3)], "3"), ([("a", 1), ("b", 1)], r"\[2\] of axis 1")])
def test_a_value_that_would_never_run_is_refused(always: list[tuple[str, int]], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        grid("ab", [1, 2], always=always)
