"""Waiting for a directory, and readers that wait so."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.wire import FileTransport
from pipeline.wire import file_transport as transport_module
from pipeline.wire.watch import DirectoryWatch, watch_directory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
LONG_S = 60.0


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[DirectoryWatch]:
    made = watch_directory(str(tmp_path))
    assert made is not None
    yield made
    made.close()
    made.close()


def test_a_file_that_is_made_and_one_that_is_written_are_noticed(tmp_path: Path, watch: DirectoryWatch) -> None:
    assert not watch.wait(0)
    file = tmp_path / "file"
    file.touch()
    assert watch.wait(LONG_S)
    file.write_bytes(b"more")
    assert watch.wait(LONG_S)
    assert not watch.wait(0)


def test_closing_ends_a_wait(watch: DirectoryWatch) -> None:
    seen: list[bool] = []
    waiter = threading.Thread(target=lambda: seen.append(watch.wait(LONG_S)))
    waiter.start()
    watch.close()
    waiter.join()
    assert seen == [False]
    assert not watch.wait(LONG_S)


def test_a_directory_that_is_not_there_is_not_watched(tmp_path: Path) -> None:
    assert watch_directory(str(tmp_path / "absent")) is None


class Deaf:
    """A watch on a file system that tells nothing."""

    made = 0

    def __init__(self, _path: str) -> None:
        Deaf.made += 1
        self.closed = False

    def wait(self, _timeout_s: float) -> bool:
        assert not self.closed
        return False

    def close(self) -> None:
        self.closed = True


def test_a_reader_does_without_a_watch_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "watch_directory", Deaf)
    writer, reader = FileTransport(str(tmp_path)), FileTransport(str(tmp_path))
    writer.claim()
    writer.begin(b"header")
    subscription = reader.subscribe(None)
    assert subscription.next(LONG_S)
    for number in range(8):
        timer = threading.Timer(0.01, writer.publish, ([b"%d" % number],), {"sync": False})
        timer.start()
        (got,) = subscription.next(LONG_S) or []
        assert got[1] == b"%d" % number
        timer.join()
    assert Deaf.made == 1, "it was given up for good"
    subscription.close()
    writer.close()
    reader.close()
