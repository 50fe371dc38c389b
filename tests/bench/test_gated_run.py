"""A run that goes on window by window, and the benchmarks of tiers on it, at a small scale."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tools.bench import fio, tiers_dram, tiers_ssd
from tools.bench.side import Side

STEPS = 10


@pytest.fixture
def quickstart(tmp_path: Path) -> Iterator[Side]:
    overrides = ["stages.stream.enabled=false", "stages.eval.enabled=false", "store.ssd.direct=false"]
    with Side("tools.bench.gated_run", "quickstart", str(tmp_path / "run"), *overrides) as side:
        yield side


def test_a_window_has_its_steps_and_the_run_stands_between_windows(quickstart: Side) -> None:
    assert quickstart.knobs["settle_steps"] == quickstart.knobs["lookahead"] + 2
    first = quickstart.ask({"run": STEPS})
    assert first["seconds"] > 0
    assert first["misses"] > first["hits"] * 0.1, "the run begins with an empty L1"
    asked = {"rows": {"table": "item", "ids": [0, 1, 2, 3]}}
    rows = quickstart.ask(asked)["rows"]
    assert [len(row) for row in rows] == [32] * 4
    assert quickstart.ask(asked)["rows"] == rows, "nothing is trained between windows"
    second = quickstart.ask({"run": STEPS})
    assert second["misses"] < first["misses"]
    assert quickstart.ask(asked)["rows"] != rows


def test_a_side_that_cannot_begin_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"tools\.bench\.gated_run ended with 1"):
        Side("tools.bench.gated_run", str(tmp_path / "absent.yaml"), str(tmp_path / "run"))


@pytest.mark.skipif(find_spec("fbgemm_gpu") is None, reason="the peer is not installed: make .venv/.peers")
def test_the_dram_tier_comes_to_the_rows_of_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers_dram, "SCALES", {True: (4, 1)})
    monkeypatch.setattr(tiers_dram, "STEPS", 30)
    monkeypatch.setattr(tiers_dram, "DISTRIBUTIONS", ("zipf 1.05",))
    row, parts = tiers_dram.run(quick=True)
    assert "load" in parts.measured
    assert "rows brought in" in row.measured
    assert row.knobs["l1_rows"] == 260_000


def test_an_absent_peer_is_named_with_the_command_that_brings_it() -> None:
    ours = [{"seconds": 0.3, "misses": 60.0, "cpu_s": 0.5}]
    row = tiers_dram._row("zipf 1.05", [ours], 3, {})
    assert "20 rows brought in" in row.measured
    assert row.peer_measured == "absent: pip install --no-deps fbgemm-gpu-cpu==1.8.0"
    assert row.met is None


@pytest.mark.long
def test_it_runs_without_its_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers_dram, "SCALES", {True: (3, 1)})
    monkeypatch.setattr(tiers_dram, "STEPS", 30)
    monkeypatch.setattr(tiers_dram, "DISTRIBUTIONS", ("zipf 1.05",))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    row, parts = tiers_dram.run(quick=True)
    assert "load" in parts.measured
    assert "rows brought in" in row.measured
    assert row.knobs["l1_rows"] == 260_000
    assert row.peer_measured == "absent: pip install --no-deps fbgemm-gpu-cpu==1.8.0"
    assert row.met is None


@pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed: apt-get install fio")
def test_rows_on_disk_come_to_those_all_resident_and_every_bound_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers_ssd, "SCALES", {True: tiers_ssd.Scale(3, 2, 1, 0.1, 8 << 20)})
    monkeypatch.setattr(tiers_ssd, "DISTRIBUTIONS", ("zipf 1.05",))
    (row,) = tiers_ssd.run(quick=True)
    assert "x the bound" in row.measured
    assert row.peer_measured.count(" ms") == 3
    assert row.met is not None


@pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed: apt-get install fio")
def test_fio_writes_beside_its_reads_to_a_file_of_its_own(tmp_path: Path) -> None:
    fio.write_file(tmp_path / "read", 2 << 20)
    before = (tmp_path / "read").read_bytes()
    engine = fio.usable_engine(tmp_path / "read")
    assert engine is not None
    writes = fio.Writes(tmp_path / "written", 4e6)
    window = fio.fio_window(tmp_path / "read", engine, 1, 0.5, writes=writes)
    wide = fio.fio_window(tmp_path / "read", engine, 1, 0.2, block_bytes=128 << 10, writes=writes)
    assert (tmp_path / "read").read_bytes() == before
    assert (tmp_path / "written").stat().st_size > 0
    assert window.bytes_per_s == pytest.approx(window.reads_per_s * 4096, rel=0.05)
    assert wide.bytes_per_s == pytest.approx(wide.reads_per_s * (128 << 10), rel=0.05)
