"""The SSD tier keeps the contract of tiers, with segments so small that they fill, seal and are compacted all the time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.files import RealFiles
from pipeline.rowlog.log import RowLog, RowLogOptions
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.store.ssd import SsdTier
from tests.contracts.tier import TierContract

SMALL = RowLogOptions(segment_bytes=4 << 20, extent_bytes=64 << 10, write_behind_bytes=512 << 10)
TINY = RowLogOptions(segment_bytes=8192, extent_bytes=4096, write_behind_bytes=8192)


class TestSsdTier(TierContract):
    options, direct = SMALL, False

    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self.path, self.made = tmp_path, 0

    def make(self) -> SsdTier:
        self.made += 1
        directories = [str(self.path / f"{self.made}" / disk) for disk in ("a", "b")]
        files = RealFiles()
        return SsdTier(RowLog(directories, files, lambda: RealReads(depth=4, direct=self.direct), self.options))


class TestSsdTierOfTinySegments(TestSsdTier):
    """Every few rows end a segment, and every other put finds something to compact."""

    options = TINY
    test_a_reader_sees_each_row_whole_old_or_new = None  # type: ignore[assignment]  # of long rows: a file each
    test_many_rows_in_many_puts = None  # type: ignore[assignment]  # thousands of files


class TestSsdTierPastThePageCache(TestSsdTier):
    direct = True

    @pytest.fixture(autouse=True)
    def needs_direct_reads(self, tmp_path: Path) -> None:
        probe = tmp_path / "probe"
        probe.write_bytes(bytes(4096))
        try:
            os.close(os.open(probe, os.O_RDONLY | os.O_DIRECT))
        except OSError as error:
            pytest.skip(f"no direct reads on the file system of {tmp_path}: {error}")
