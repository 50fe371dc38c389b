"""The double keeps the contract, and at a crash it does to unsynced data what it is told."""

from __future__ import annotations

import errno
import random

import pytest

from pipeline.files import BrokenFile, DiskFull, Files, write_atomically
from tests.files.contract import FilesContract
from tests.files.nodes import OUTCOMES
from tests.files.recording import Crashed, RecordingFiles


class TestRecordingFiles(FilesContract):
    @pytest.fixture
    def files(self) -> Files:
        files = RecordingFiles()
        files.make_dirs("/root")
        return files

    @pytest.fixture
    def root(self) -> str:
        return "/root"


def disk() -> RecordingFiles:
    files = RecordingFiles()
    files.make_dirs("/d")
    return files


def test_a_crash_takes_what_was_not_synced() -> None:
    files = disk()
    file = files.create("/d/a")
    files.sync_dir("/d")
    file.write(b"kept")
    file.sync()
    file.write(b"lost")
    assert files.after_crash("drop").read("/d/a") == b"kept"
    assert files.after_crash("keep").read("/d/a") == b"keptlost"
    torn = {files.after_crash("tear", random.Random(seed)).read("/d/a") for seed in range(50)}
    assert torn == {b"kept", b"keptl", b"keptlo", b"keptlos", b"keptlost"}


def test_a_crash_takes_names_that_were_not_synced() -> None:
    files = disk()
    file = files.create("/d/a")
    file.write(b"data")
    file.sync()
    assert not files.after_crash("drop").exists("/d/a")
    files.sync_dir("/d")
    files.rename("/d/a", "/d/b")
    assert files.after_crash("drop").list("/d") == ["a"]
    assert files.after_crash("keep").list("/d") == ["b"]


def test_reordered_sectors_leave_holes() -> None:
    files = disk()
    file = files.create("/d/a")
    files.sync_dir("/d")
    file.write(b"x" * 2048)
    seen = {files.after_crash("reorder", random.Random(seed)).read("/d/a") for seed in range(200)}
    assert b"\0" * 512 + b"x" * 512 in seen
    assert len(seen) == 16


def test_data_of_a_failed_sync_is_lost_though_a_later_sync_succeeds() -> None:
    files = disk()
    file = files.create("/d/a")
    files.sync_dir("/d")
    file.write(b"gone")
    files.fail("sync", code=errno.EIO)
    with pytest.raises(OSError, match="/d/a"):
        file.sync()
    with pytest.raises(BrokenFile):
        file.write(b"x")
    again = files.open_append("/d/a")
    again.write(b"kept")
    again.sync()
    assert files.read("/d/a") == b"gonekept"
    assert files.after_crash("drop").read("/d/a") == b"\0\0\0\0kept"


def test_the_kth_call_of_a_kind_fails() -> None:
    files = disk()
    file = files.create("/d/a")
    files.fail("write", at=2, times=2, code=errno.ENOSPC)
    file.write(b"one")
    for _ in range(2):
        with pytest.raises(DiskFull, match="3 more bytes did not fit"):
            file.write(b"two")
    assert file.write(b"four") == 3
    assert files.counts["write"] == 4


def test_a_dead_process_does_nothing_more() -> None:
    files = disk()
    files.crash_at = 2
    file = files.create("/d/a")
    with pytest.raises(Crashed):
        file.write(b"x")
    with pytest.raises(Crashed):
        files.sync_dir("/d")


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_write_atomically_survives_a_crash_at_every_call(outcome: str) -> None:
    """After a crash the name holds the old bytes or the new ones; once the call has returned, the new ones."""
    old, new = b"o" * 700, b"n" * 1300
    for crash_at in range(1, 20):
        for seed in range(20):
            files = disk()
            write_atomically(files, "/d/a", old)
            files.crash_at = crash_at
            done = False
            try:
                write_atomically(files, "/d/a", new)
                done = True
            except Crashed:
                pass
            after = files.after_crash(outcome, random.Random(seed))  # type: ignore[arg-type]
            assert after.read("/d/a") in ((new,) if done else (old, new)), f"crash at call {crash_at}"
            write_atomically(after, "/d/a", b"next")
            assert after.list("/d") == ["a"]
    assert done, "the last round did not crash"


@pytest.mark.parametrize("kind", ["create", "write", "sync", "rename"])
def test_a_failed_write_atomically_leaves_the_old_file_and_no_other(kind: str) -> None:
    files = disk()
    write_atomically(files, "/d/a", b"old")
    files.fail(kind, code=errno.ENOSPC)
    with pytest.raises(DiskFull):
        write_atomically(files, "/d/a", b"new")
    assert (files.list("/d"), files.read("/d/a")) == (["a"], b"old")
