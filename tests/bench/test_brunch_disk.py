"""The brunch benchmark on the beginning of the real log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tests.conftest import real_data
from tools.bench import brunch_disk, index_reads


def test_an_absent_log_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROWSTREAM_DATA", str(tmp_path))
    (row,) = brunch_disk.run(quick=True)
    assert row.measured == f"absent: no {tmp_path / 'brunch'}; set ROWSTREAM_DATA"


def test_rows_are_counted_over_files_as_far_as_they_are_read(tmp_path: Path) -> None:
    for number in range(2):
        ids = np.arange(4) + number
        table = pa.table({name: ids if name == "user" else ids * 0 for name in brunch_disk.TABLES})
        parquet.write_table(table, tmp_path / f"{number}.parquet")
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    assert [brunch_disk.count_rows(paths, reads) for reads in (2, 4, 6, 8)] == [2 + 3, 4 + 3, 4 + 3, 5 + 3]


def test_rows_below_l1_and_the_reads_that_bring_them_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    real_data("brunch")
    monkeypatch.setattr(brunch_disk, "SCALES", {True: brunch_disk.Scale(300_000, 20, 2)})
    monkeypatch.setattr(brunch_disk, "FIO_BYTES", 4 << 20)
    monkeypatch.setattr(brunch_disk, "FIO_S", 0.1)
    row, threads = brunch_disk.run(quick=True)
    assert "of resident" in row.measured
    assert "reads reached the device" in row.measured
    assert "compute " in threads.measured
    assert "tier-reads " in threads.measured
    assert "tier-reads " not in threads.peer_measured
    rows = row.knobs["rows"]
    assert isinstance(rows, int)
    assert row.knobs["l1_rows"] == int(rows * brunch_disk.L1_SHARE)


def test_cold_reads_are_timed_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_reads, "ENDS", {True: (2000, 9000)})
    monkeypatch.setattr(index_reads, "WINDOWS", {True: (0.05, 2)})
    monkeypatch.setattr(index_reads, "FIO_BYTES", {True: 1 << 20})
    ((what, text, goal, _),) = index_reads.rows(quick=True)
    assert "2,000 to 9,000 rows" in what
    assert "of 2,000 rows" in text
    assert "of 9,000 rows" in text
    assert goal == "<= 1.3x"
