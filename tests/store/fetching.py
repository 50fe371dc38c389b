"""The ways in which rows are fetched."""

from __future__ import annotations

import pytest

from pipeline.store import fetcher

WAYS = ("in the turn", "by snapshots")


def force(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all rows read by snapshots, or few in the fetch's turn at the fence, as they are."""
    assert way in WAYS
    if way == "by snapshots":
        monkeypatch.setattr(fetcher, "MOST_ROWS", -1)
