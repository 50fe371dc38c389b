"""What each list of sabotages has to pass: the checks find nothing wrong with the product, and something with each sabotage of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

Sabotage = Callable[[], AbstractContextManager[Any]]
"""While it is entered the product is broken."""
BROKEN = (AttributeError, TypeError, NameError)


def assert_caught(sabotage: Sabotage, check: Callable[[], object], *notices: type[BaseException], name: str) -> None:
    """``check`` fails under the sabotage: by an assertion, or by an error of ``notices``, which the product raises itself. An error that
    only says that the sabotage does not fit the product any more catches nothing. ``name``: printed with what was noticed.
    """
    with sabotage(), pytest.raises((AssertionError, *notices)) as caught:
        check()
    assert not isinstance(caught.value.__cause__, BROKEN), f"the sabotage itself does not work: {caught.value}"
    print(f"{name}: {caught.type.__name__}: {str(caught.value)[:100]}")
