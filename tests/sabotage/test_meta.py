"""Each sabotage of identities and metadata is caught, and without one the same checks pass."""

from __future__ import annotations

import pytest

from tests.sabotage.caught import assert_caught
from tests.sabotage.meta import SABOTAGES, check


def test_the_checks_pass_on_the_product() -> None:
    check()


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_caught(name: str) -> None:
    assert_caught(SABOTAGES[name], check, name=name)
