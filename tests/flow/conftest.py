"""Every test of the runtime runs under the loop guard."""

from __future__ import annotations

import pytest

from tests.support.loop_guard import loop_guard

__all__ = ["loop_guard"]


@pytest.fixture(autouse=True)
def _nothing_blocks(loop_guard: object) -> None:
    """See ``loop_guard``."""
