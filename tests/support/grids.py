"""Grids of parameters of which a few points run always and all others in the long form."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import product
from typing import Any

import pytest


def grid(*axes: Iterable[Any], always: Collection[tuple[Any, ...]]) -> list[Any]:
    """Every combination of ``axes``, for ``parametrize``; those not in ``always`` are marked ``long``.

    Raises ValueError when ``always`` names no point of the grid, or leaves out a value of an axis: each runs at least once.
    """
    lists = [list(axis) for axis in axes]
    points = list(product(*lists))
    if not set(always) <= set(points):
        raise ValueError(f"not in the grid: {sorted(set(always) - set(points), key=repr)}")
    for number, axis in enumerate(lists):
        missing = set(axis) - {point[number] for point in always}
        if missing:
            raise ValueError(f"never run but in the long form: {sorted(missing, key=repr)} of axis {number}")
    return [pytest.param(*point, marks=() if point in always else pytest.mark.long) for point in points]
