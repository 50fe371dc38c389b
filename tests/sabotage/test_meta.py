"""Each sabotage of identities and metadata is caught, and without one the same checks pass."""

from __future__ import annotations

import pytest

from tests.sabotage.meta import SABOTAGES, check


def test_the_checks_pass_on_the_product() -> None:
    check()


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_caught(name: str) -> None:
    with SABOTAGES[name](), pytest.raises(AssertionError) as caught:
        check()
    print(f"{name}: {str(caught.value)[:120]}")
