"""The tiers that tests of the store put below L1."""

from __future__ import annotations

from pathlib import Path

from pipeline.files import RealFiles
from pipeline.rowlog.log import RowLog, RowLogOptions
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.store import CacheTier, DramTier, SsdTier, Tier
from pipeline.store.cache_size import bytes_for
from tests.store.jobs import SPECS

TIERS = ("dram", "ssd", "dram over ssd")
TINY = RowLogOptions(segment_bytes=64 << 10, extent_bytes=4096, write_behind_bytes=16 << 10)


def make_tier(kind: str, directory: Path, cache_rows: int = 256) -> Tier:
    if kind == "dram":
        return DramTier()
    disk = SsdTier(RowLog([str(directory)], RealFiles(), lambda: RealReads(depth=4, direct=False), TINY))
    return disk if kind == "ssd" else CacheTier(disk, bytes_for(SPECS, cache_rows), "lru", 0.05)
