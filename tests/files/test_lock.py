"""One process at a time holds a directory's lock, and a dead one holds none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.files import DirectoryLock, LockedDirectory, is_locked

HOLD = """
import sys
from pipeline.files import DirectoryLock
with DirectoryLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_object_is_refused_with_the_process_that_holds_it(tmp_path: Path) -> None:
    with DirectoryLock(str(tmp_path)), pytest.raises(LockedDirectory, match=f"process {os.getpid()}") as raised:
        DirectoryLock(str(tmp_path)).__enter__()
    assert (raised.value.pid, raised.value.path) == (os.getpid(), str(tmp_path))
    with DirectoryLock(str(tmp_path)):
        pass


def test_taking_it_twice_is_refused(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))
    with lock, pytest.raises(LockedDirectory):
        lock.__enter__()


def test_another_process_is_refused_until_the_holder_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedDirectory, match=f"process {holder.pid}"):
            DirectoryLock(str(tmp_path)).__enter__()
        holder.kill()
        holder.wait()
        with DirectoryLock(str(tmp_path)):
            assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "nothing")):
        DirectoryLock(str(tmp_path / "nothing")).__enter__()


def test_whether_it_is_held_can_be_asked_without_touching_it(tmp_path: Path) -> None:
    assert not is_locked(str(tmp_path))
    assert not list(tmp_path.iterdir())
    with DirectoryLock(str(tmp_path)):
        assert is_locked(str(tmp_path))
        assert is_locked(str(tmp_path))
    assert not is_locked(str(tmp_path))
    (tmp_path / ".lock").write_text("12345\n")  # left by a process that was killed
    assert not is_locked(str(tmp_path))
    with DirectoryLock(str(tmp_path)):
        assert is_locked(str(tmp_path))
