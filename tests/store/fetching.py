"""The tiers that rows are fetched from in tests, and the ways in which they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.files import RealFiles
from pipeline.rowlog.log import RowLog, RowLogOptions
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.store import CacheTier, DramTier, SsdTier, Tier, fetcher
from pipeline.store.cache_size import bytes_for
from tests.store.jobs import SPECS

WAYS = ("in the turn", "by snapshots")
TIERS = ("dram", "ssd", "dram over ssd")
TINY = RowLogOptions(segment_bytes=64 << 10, extent_bytes=4096, write_behind_bytes=16 << 10)


def make_tier(kind: str, directory: Path) -> Tier:
    if kind == "dram":
        return DramTier()
    disk = SsdTier(RowLog([str(directory)], RealFiles(), lambda: RealReads(depth=4, direct=False), TINY))
    return disk if kind == "ssd" else CacheTier(disk, bytes_for(SPECS, 256), "lru", 0.05)


def force(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all rows read by snapshots, or few in the fetch's turn at the fence, as they are."""
    assert way in WAYS
    if way == "by snapshots":
        monkeypatch.setattr(fetcher, "MOST_ROWS", -1)
