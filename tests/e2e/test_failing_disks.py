"""A disk that fails under the rows: the run stops and says where, and the checkpoint before is whole."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import cast

import pytest

from pipeline.files import DirectoryLock, LockedDirectory, RealFiles, WritableFile
from pipeline.files.base import Buffer
from pipeline.files.errors import naming
from pipeline.files.real import RealFile
from pipeline.flow import StageError
from pipeline.rowlog import RowLogError
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.rowlog.log.row_reads import Int32s, Int64s, RowBytes
from pipeline.session.disk import Disk
from pipeline.session.resume import Resume
from tests.e2e.command import here
from tests.e2e.jobs import RAGGED, run_job

TIERS = ("store.l1_rows=150", "store.ssd.segment_bytes=8192", "store.ssd.extent_bytes=4096")


class Failing:
    """Once ``at`` is set, calls of ``kind`` on files below ``part`` fail with ``code``, on the real disk otherwise."""

    def __init__(self, kind: str, part: str, code: int) -> None:
        self.kind, self.part, self.code = kind, part, code
        self.now = threading.Event()

    def meet(self, kind: str, path: str, needed: int = 0) -> None:
        if self.now.is_set() and kind == self.kind and f"/{self.part}/" in path:
            with naming(path, needed):
                raise OSError(self.code, os.strerror(self.code))


class FailingFile:
    def __init__(self, file: WritableFile, failing: Failing) -> None:
        self._file, self._failing, self.name = file, failing, file.name

    @property
    def size(self) -> int:
        return self._file.size

    def write(self, data: Buffer, *more: Buffer) -> int:
        self._failing.meet("write", self.name, len(data) + sum(map(len, more)))
        return self._file.write(data, *more)

    def sync(self) -> None:
        self._failing.meet("sync", self.name)
        self._file.sync()

    def close(self) -> None:
        self._file.close()


class FailingFiles(RealFiles):
    def __init__(self, failing: Failing) -> None:
        self._failing = failing

    def create(self, path: str) -> RealFile:
        self._failing.meet("create", path)
        return cast(RealFile, FailingFile(super().create(path), self._failing))

    def rename(self, old: str, new: str) -> None:
        self._failing.meet("rename", old)
        super().rename(old, new)


class FailingReads(RealReads):
    def __init__(self, depth: int, direct: bool, failing: Failing) -> None:
        super().__init__(depth, direct)
        self._failing = failing

    def read(self, files_n: Int32s, offsets_n: Int64s, out_nb: RowBytes) -> None:
        for number in set(files_n.tolist()):  # of these only: other threads open and close files meanwhile
            self._failing.meet("read", self._paths[number])
        super().read(files_n, offsets_n, out_nb)


@pytest.mark.parametrize(
    ("kind", "part", "code", "told"),
    [
        ("write", "ssd", errno.ENOSPC, "disk is full"),
        ("create", "ssd", errno.EROFS, "Read-only file system"),
        ("sync", "ssd", errno.EIO, "Input/output error"),
        ("read", "ssd", errno.EIO, "Input/output error"),
        ("write", "checkpoints", errno.ENOSPC, "disk is full"),
        ("create", "checkpoints", errno.EROFS, "Read-only file system"),
        ("rename", "checkpoints", errno.EIO, "Input/output error"),
    ],
)
def test_the_run_stops_with_the_place_and_the_checkpoint_before_is_whole(
    tmp_path: Path, kind: str, part: str, code: int, told: str
) -> None:
    directory, failing = tmp_path / "run", Failing(kind, part, code)
    disk = Disk(FailingFiles(failing), lambda depth, direct: FailingReads(depth, direct, failing))

    def fail_behind_a_checkpoint(step: int) -> None:
        if step % 5 == 0 and not failing.now.is_set() and Resume.newest(directory).reader is not None:
            failing.now.set()

    with pytest.raises((StageError, RowLogError, OSError)) as stopped:
        run_job(
            directory,
            RAGGED,
            *TIERS,
            "checkpoint.every='4 steps'",
            "stages.source.batches=4000",
            on_step=fail_behind_a_checkpoint,
            disk=disk,
        )
    assert told in chain(stopped.value)
    assert f"{directory}/{part}/" in chain(stopped.value)
    failing.now.clear()
    assert here("verify", directory).code == 0
    assert here("rows", directory, "--table", "wide", "--ids", "1").code == 0
    assert here("export", directory, "--table", "wide", "--out", tmp_path / "wide.npz").code == 0


def chain(error: BaseException | None) -> str:
    told = ""
    while error is not None:
        told += f"{error}\n"
        error = error.__cause__ or error.__context__
    return told


def test_a_directory_that_another_run_has_is_refused_by_name(tmp_path: Path) -> None:
    shared = tmp_path / "ssd"
    shared.mkdir()
    with DirectoryLock(str(shared)), pytest.raises(LockedDirectory, match=f"{os.getpid()}.*{shared}"):
        run_job(tmp_path / "run", RAGGED, *TIERS, f"store.ssd.path={shared}")
