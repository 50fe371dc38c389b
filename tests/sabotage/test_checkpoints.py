"""Each sabotage of what a checkpoint saves is caught."""

from __future__ import annotations

import pytest

from pipeline.rowlog.errors import RowLogError
from pipeline.store import StoreError
from tests.sabotage.caught import assert_caught
from tests.sabotage.checkpoints import SABOTAGES
from tests.store import test_tiers_and_checkpoints as lives


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_caught(name: str) -> None:
    """The lives pass when nothing is broken: see their own test."""
    assert_caught(SABOTAGES[name], live, RowLogError, StoreError, name=name)


def live() -> None:
    for layout in ("memory", "disk", "cache"):
        lives.test_a_life_with_checkpoints_under_way(layout)
