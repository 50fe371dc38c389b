"""RocksDB stands behind the Tier interface as every tier does, and the benchmark says when it is absent."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.contracts.tier import TierContract
from tools.bench import rocksdb
from tools.bench.rocks_tier import RocksTier

HAVE_PEER = importlib.util.find_spec("rocksdict") is not None


@pytest.mark.skipif(not HAVE_PEER, reason="rocksdict is not installed: pip install rocksdict==0.3.29")
class TestRocksTier(TierContract):
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self.path, self.made = tmp_path, 0

    def make(self) -> RocksTier:
        self.made += 1
        return RocksTier(self.path / f"{self.made}")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rocksdb, "SCALES", {True: (3000, 0.02, 2)})
    monkeypatch.setattr(rocksdb, "BATCH", 500)


@pytest.mark.usefixtures("small")
def test_an_absent_peer_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    rows = rocksdb.run(quick=True)
    assert [row.peer_measured for row in rows] == ["absent: pip install rocksdict==0.3.29"] * len(rows)
    assert all("M rows/s" in row.measured for row in rows)
    assert len({row.what for row in rows}) == len(rows) == 2 * len(rocksdb.CASES)


@pytest.mark.usefixtures("small")
@pytest.mark.skipif(not HAVE_PEER, reason="rocksdict is not installed: pip install rocksdict==0.3.29")
def test_both_sides_get_every_row_warm_and_cold() -> None:
    rows = rocksdb.run(quick=True)
    assert all("x the peer's" in row.measured for row in rows)
    assert [row.met is not None for row in rows] == [True] + [False] * (len(rows) - 1)
