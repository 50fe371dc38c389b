"""G5 for a replica's directory: whatever a crash at any call leaves, the next replica goes on behind the durable cut to the same end."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from pipeline.replica import NotKept, Replica
from pipeline.replica.targets import choose, log_store
from pipeline.replica.targets.log_store import LogStore, StoreDisk
from pipeline.rowlog.log import RowLogOptions
from pipeline.wire.frames import START, CutPosition
from tests.files.journal import Image, JournalFiles, crash_images
from tests.files.recording import RecordingFiles
from tests.replica.trainer import DictTrainer, MemoryTransport, assert_equal, assert_shows
from tests.rowlog.files_reads import FilesReads

DIMS = {"item": 4, "user": 3}
PROBES = range(-2, 40)
TINY = RowLogOptions(segment_bytes=4096, extent_bytes=4096, write_behind_bytes=16384)
CUTS = 7
EVERY_FOURTH = 4
IN_CI = 13
"""A prime: a commit makes some dozen calls."""


def no_lock(_directory: str) -> AbstractContextManager[object]:
    return nullcontext()


def replica_on(
    monkeypatch: pytest.MonkeyPatch, disk: StoreDisk, path: str, transport: MemoryTransport, target: str
) -> Replica:
    """A replica whose store does its file work with ``disk``."""
    monkeypatch.setattr(choose, "LogStore", lambda directory, _real: LogStore(directory, disk, TINY))
    return Replica(transport, path=path, target=target, commit_every_s=0)  # type: ignore[arg-type]


class Stream:
    """Cuts with rows that come, change and go, a fork and a snapshot cut, published one by one."""

    def __init__(self) -> None:
        self.trainer = DictTrainer(DIMS, seed=11)
        self.trainer.carries = ("raw",)
        self.transport = MemoryTransport()
        self.transport.begin(self.trainer.header())

    def publish(self, number: int) -> None:
        trainer = self.trainer
        if number == CUTS - 2:
            self.transport.begin(trainer.fork_at(CutPosition(1, 3)))
            self.transport.publish(trainer.cut(rewind=True))
            return
        trainer.dense = {"w": trainer.rng.normal(size=9)}
        trainer.update({"item": list(dict.fromkeys(trainer.rng.integers(0, 40, 25).tolist())), "user": [number, 2]})
        trainer.forget("item", trainer.rng.integers(0, 40, 6).tolist())
        self.transport.publish(trainer.cut())
        if number % EVERY_FOURTH == 3:
            self.transport.publish(trainer.snapshot())


def record(
    monkeypatch: pytest.MonkeyPatch, directory: Path, target: str
) -> tuple[Stream, JournalFiles, list[CutPosition]]:
    """What a replica's directory went through while it followed the stream. Note ``cut``: how many cuts were durable by then."""
    stream, files = Stream(), JournalFiles(directory)
    disk = StoreDisk(files, lambda: FilesReads(files), no_lock)
    positions = [START]
    replica = replica_on(monkeypatch, disk, str(directory / "replica"), stream.transport, target)
    for number in range(CUTS):
        stream.publish(number)
        replica.apply_available()
        positions.append(replica.durable_position)
        files.note("cut", number + 1)
    replica.close()
    return stream, files, positions


def check(
    monkeypatch: pytest.MonkeyPatch, image: Image, stream: Stream, positions: list[CutPosition], target: str
) -> None:
    """Restart on an image; look; follow to the end."""
    files = RecordingFiles(image.root())
    disk = StoreDisk(files, lambda: FilesReads(files), no_lock)
    with replica_on(monkeypatch, disk, "/replica", stream.transport, target) as replica:
        found = positions.index(replica.position)
        assert found >= image.noted.get("cut", 0), "an acknowledged cut is gone"
        with replica.view() as view:
            assert_shows(view, stream.trainer, replica.position, PROBES)
        replica.apply_available()
        assert_equal(replica, stream.trainer, PROBES)
        assert replica.counters.cuts == len(positions) - 1 - found, "each later cut once, and no other"
        assert replica.durable_position == stream.trainer.previous


@pytest.mark.parametrize("target", ["memory", "rowlog"])
@pytest.mark.parametrize("share", [pytest.param(1, marks=pytest.mark.long), IN_CI])
def test_a_crash_behind_any_call_leaves_a_durable_cut_with_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, share: int
) -> None:
    """Of all images, or of one in so many, which differ from call to call of a commit."""
    stream, files, positions = record(monkeypatch, tmp_path, target)
    assert positions == sorted(positions)
    kinds = {entry.kind for entry in files.entries}
    assert {"write", "sync", "rename", "sync_dir", "remove", "create"} <= kinds
    images = list(crash_images(files.entries))
    assert {image.outcome for image in images} == {"keep", "drop", "tear", "reorder"}
    for image in images[::share]:
        try:
            check(monkeypatch, image, stream, positions, target)
        except BaseException as error:
            error.add_note(str(image))
            raise


@pytest.mark.parametrize("target", ["memory", "rowlog"])
@pytest.mark.parametrize("kind", ["write", "sync", "create", "rename", "sync_dir"])
def test_a_disk_that_fails_stops_the_replica_at_the_cut_before(
    monkeypatch: pytest.MonkeyPatch, kind: str, target: str
) -> None:
    stream, files = Stream(), RecordingFiles()
    disk = StoreDisk(files, lambda: FilesReads(files), no_lock)
    replica = replica_on(monkeypatch, disk, "/replica", stream.transport, target)
    for number in range(3):
        stream.publish(number)
        replica.apply_available()
    durable = replica.durable_position
    assert durable == replica.position
    files.fail(kind, times=10**9)
    stream.publish(3)
    for _ in range(2):
        with pytest.raises(NotKept, match=f"durable is cut {durable.cut} of generation 1"):
            replica.apply_available()
    if target == "memory":
        with replica.view() as view:
            assert_shows(view, stream.trainer, view.position, PROBES)
    replica.close()
    files.heal()
    with replica_on(monkeypatch, disk, "/replica", stream.transport, target) as again:
        assert again.position == durable
        again.apply_available()
        assert_equal(again, stream.trainer, PROBES)


def test_small_segments_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit each few rows leaves no more files than a bound, and the rows stay."""
    monkeypatch.setattr(log_store, "MOST_SMALL_SEGMENTS", 4)
    trainer = DictTrainer({"item": 4})
    transport = MemoryTransport()
    transport.begin(trainer.header())
    with Replica(transport, path=tmp_path / "replica", target="rowlog", commit_every_s=0) as replica:  # type: ignore[arg-type]
        for number in range(25):
            trainer.update({"item": [number]})
            trainer.forget("item", [number - 1] if number % 5 == 1 else [])
            transport.publish(trainer.cut())
            replica.apply_available()
            assert len(list((tmp_path / "replica" / "rows").glob("*.seg"))) <= 10
    with Replica(transport, path=tmp_path / "replica") as replica:  # type: ignore[arg-type]
        assert_equal(replica, trainer, PROBES)
