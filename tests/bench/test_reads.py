"""The reads benchmark: every side works on the one file, and an absent fio is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tools.bench import fio, reads


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fio, "PIECE_BYTES", 1 << 20)
    monkeypatch.setattr(reads, "PIECE_BYTES", 1 << 20)
    monkeypatch.setattr(reads, "SCALES", {True: (2 << 20, 0.01, 2)})
    monkeypatch.setattr(reads, "BATCH_ROWS", 100)


@pytest.mark.usefixtures("small")
def test_an_absent_fio_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    *cold, warm = reads.run(quick=True)
    assert [row.peer_measured for row in cold] == ["absent: apt-get install fio"] * 3
    assert [row.met for row in (*cold, warm)] == [None] * 4
    assert ["queue(s)" in row.what for row in cold] == [True, True, False]
    assert all("reads/s" in row.measured for row in (*cold, warm))


@pytest.mark.usefixtures("small")
@pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed: apt-get install fio")
def test_fio_reads_the_same_file_in_turn() -> None:
    *cold, warm = reads.run(quick=True)
    assert all("of fio's IOPS" in row.measured for row in cold)
    assert {row.peer_measured for row in cold} == {cold[0].peer_measured}
    assert [row.met is None for row in cold] == [False, False, True]
    assert warm.peer == "-"


@pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed: apt-get install fio")
def test_a_file_that_fio_cannot_read_is_named_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match=r"(?s)fio can read .*/absent with none .* io_uring: .*Invalid.*libaio: .*Invalid"
    ):
        fio.usable_engine(tmp_path / "absent")
