"""The operating system's files keep the contract, and map their errors."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.files import BrokenFile, DiskFull, RealFiles
from tests.files.contract import FilesContract


class TestRealFiles(FilesContract):
    @pytest.fixture
    def files(self) -> RealFiles:
        return RealFiles()

    @pytest.fixture
    def root(self, tmp_path: Path) -> str:
        return str(tmp_path)


def test_a_full_disk_is_an_error_of_its_own() -> None:
    file = RealFiles().open_append("/dev/full")
    with pytest.raises(DiskFull, match=r"5 more bytes did not fit; free some space.*/dev/full") as raised:
        file.write(b"12345")
    assert (raised.value.errno, raised.value.needed, raised.value.path) == (errno.ENOSPC, 5, "/dev/full")
    file.close()


@contextmanager
def at_most_4096_bytes() -> Iterator[None]:
    """No file may grow past 4,096 bytes: the kernel takes what fits of a write and refuses the rest.

    Not a fixture: the limit is the whole process's, and the runner's own report may go to a longer file.
    """
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_was_written_of_a_failed_write_is_cut_off(tmp_path: Path) -> None:
    file = RealFiles().create(str(tmp_path / "a"))
    file.write(b"x" * 4000)
    with at_most_4096_bytes(), pytest.raises(OSError, match=str(tmp_path / "a")):
        file.write(b"y" * 200)
    assert (file.size, (tmp_path / "a").stat().st_size) == (4000, 4000)
    with at_most_4096_bytes(), pytest.raises(OSError, match=str(tmp_path / "a")):
        file.write(b"y" * 50, b"y" * 50)
    assert (file.size, (tmp_path / "a").stat().st_size) == (4000, 4000)
    with at_most_4096_bytes():
        assert file.write(b"z" * 96) == 4000
    file.close()
    assert (tmp_path / "a").read_bytes() == b"x" * 4000 + b"z" * 96


def test_what_the_system_takes_in_small_pieces_arrives_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = os.pwritev

    def some(fd: int, parts: list[memoryview], offset: int) -> int:
        return system(fd, [next(part for part in parts if len(part))[:3]], offset)

    monkeypatch.setattr(os, "pwritev", some)
    file = RealFiles().create(str(tmp_path / "a"))
    assert (file.write(b"0123", b"", b"45678", b"9"), file.size) == (0, 10)
    file.close()
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_after_a_failed_sync_a_file_can_only_be_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RealFiles().create(str(tmp_path / "a"))
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", _refuse)
        with pytest.raises(OSError, match=str(tmp_path / "a")):
            file.sync()
    for call in (file.sync, lambda: file.write(b"x")):
        with pytest.raises(BrokenFile, match="an earlier sync of this file failed"):
            call()
    file.close()


def _refuse(_fd: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))
