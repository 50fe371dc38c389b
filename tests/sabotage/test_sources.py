"""Each sabotage of sources and negatives is caught, and without one the same checks pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sabotage.caught import assert_caught
from tests.sabotage.sources import SABOTAGES, check_sources


def test_the_checks_pass_on_the_product(tmp_path: Path) -> None:
    check_sources(tmp_path)


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_caught(name: str, tmp_path: Path) -> None:
    assert_caught(SABOTAGES[name], lambda: check_sources(tmp_path), name=name)
