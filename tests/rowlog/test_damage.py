"""A checkpoint survives every crash, and no damaged byte of one is taken for data."""

from __future__ import annotations

import errno
import json
import random

import numpy as np
import pytest

from pipeline.files import DiskFull
from pipeline.rowlog import CheckpointCorrupt, CheckpointReader, CheckpointWriter, OtherFormat, RowChunk
from tests.files.nodes import OUTCOMES, Outcome
from tests.files.recording import Crashed, RecordingFiles
from tests.rowlog.tables import Table, random_table, write_checkpoint

pytestmark = pytest.mark.usefixtures("small_chunks")
OLD, NEW = random_table(count=30), random_table(count=40)


def read_all(reader: CheckpointReader) -> tuple[bytes, bytes]:
    rows = b"".join(ids.tobytes() + rows.tobytes() + v.tobytes() for ids, rows, v in reader.rows("users"))
    return rows, reader.blob("dense")


def expected(table: Table, step: int) -> tuple[bytes, bytes]:
    files = RecordingFiles()
    return read_all(CheckpointReader(files, write_checkpoint(files, [table], step=step, blobs={"dense": b"%d" % step})))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_crash_at_any_call_leaves_the_old_checkpoint_or_the_new_one(outcome: Outcome) -> None:
    """Once ``commit`` has returned, the new one; and the next writer works there and leaves no rubbish."""
    old, new = expected(OLD, 1), expected(NEW, 2)
    crash_at, done = 0, False
    while not done:
        crash_at += 1
        for seed in range(3):
            files = RecordingFiles()
            write_checkpoint(files, [OLD], step=1, blobs={"dense": b"1"})
            files.crash_at = crash_at
            try:
                write_checkpoint(files, [NEW], step=2, blobs={"dense": b"2"})
                done = True
            except Crashed:
                pass
            after = files.after_crash(outcome, random.Random(seed))
            found = read_all(CheckpointReader.newest(after, "/run/checkpoints"))
            assert found in ((new,) if done else (old, new)), f"crash at call {crash_at}: {files.calls[-1]}"
            write_checkpoint(after, [OLD], step=2)
            assert len(after.list("/run/checkpoints")) == 2, after.list("/run/checkpoints")
    assert crash_at > 20


@pytest.mark.parametrize("kind", ["create", "write", "sync", "rename", "sync_dir", "make_dirs", "remove"])
def test_a_failing_disk_never_costs_the_old_checkpoint(kind: str) -> None:
    old, new = expected(OLD, 1), expected(NEW, 2)
    failed = 0
    for at in range(1, 40):
        files = RecordingFiles()
        write_checkpoint(files, [OLD], step=1, blobs={"dense": b"1"})
        files.fail(kind, at=at, code=errno.ENOSPC)
        try:
            write_checkpoint(files, [NEW], step=2, blobs={"dense": b"2"})
        except DiskFull:
            failed += 1
        for disk in (files, files.after_crash("drop")):
            assert read_all(CheckpointReader.newest(disk, "/run/checkpoints")) in (old, new)
        files.heal()
        write_checkpoint(files, [NEW], step=3, blobs={"dense": b"2"})
        assert len(files.list("/run/checkpoints")) == 2
    assert failed > 0


@pytest.mark.parametrize(("kind", "at"), [("sync", 2), ("rename", 1), ("sync_dir", 2), ("rename", 2), ("sync_dir", 3)])
def test_a_writer_whose_commit_failed_can_begin_again(kind: str, at: int) -> None:
    files = RecordingFiles()
    writer = CheckpointWriter(files, "/c")
    for step in (1, 2):
        writer.begin(step, 1, {})
        writer.add_rows(OLD.spec, OLD.ids_n, OLD.rows_nb, OLD.versions_n)
        if step == 1:
            files.fail(kind, at=at)
            with pytest.raises(OSError, match="/c"):
                writer.commit()
    assert writer.commit() == "/c/step-000000000002"
    assert files.list("/c") == ["checkpoints.json", "step-000000000002"]


def test_a_full_disk_gives_back_what_the_unfinished_checkpoint_took() -> None:
    files = RecordingFiles()
    write_checkpoint(files, [OLD], step=1)
    files.fail("write", at=3, code=errno.ENOSPC)
    with pytest.raises(DiskFull, match="more bytes did not fit"):
        write_checkpoint(files, [NEW], step=2)
    assert files.list("/run/checkpoints") == ["checkpoints.json", "step-000000000001"]


def test_every_flipped_byte_is_found_and_placed() -> None:
    files = RecordingFiles()
    path = write_checkpoint(files, [OLD], blobs={"dense": b"some dense weights"})
    good = read_all(CheckpointReader(files, path))
    rng = random.Random()
    for name in files.list(path):
        size = files.size(f"{path}/{name}")
        for offset in sorted({0, size - 1, *(rng.randrange(size) for _ in range(150))}):
            mask = 1 << rng.randrange(8)
            files.flip(f"{path}/{name}", offset, mask)
            with pytest.raises((CheckpointCorrupt, OtherFormat)) as raised:
                read_all(CheckpointReader(files, path))
            if isinstance(raised.value, CheckpointCorrupt):
                assert raised.value.path == f"{path}/{name}"
                assert raised.value.offset <= offset
                assert f"{path}/{name} at offset {raised.value.offset}" in str(raised.value)
            files.flip(f"{path}/{name}", offset, mask)
    assert read_all(CheckpointReader(files, path)) == good


def test_a_damaged_chunk_is_named_and_those_before_it_are_read() -> None:
    files, table = RecordingFiles(), random_table(count=100)
    reader = CheckpointReader(files, write_checkpoint(files, [table]))
    chunk = reader.entry("users").chunks[4]
    files.flip(f"{reader.path}/table-0000.rows", chunk.offset + 3)
    seen: list[RowChunk] = []
    with pytest.raises(
        CheckpointCorrupt, match=f"table-0000.rows at offset {chunk.offset}: these .* bytes do not have"
    ):
        seen.extend(reader.rows("users"))
    assert len(seen) == 4
    reader.find("users", table.ids_n[:1])
    with pytest.raises(CheckpointCorrupt, match=f"offset {chunk.offset}"):
        reader.find("users", [chunk.first_id])


def test_a_torn_or_missing_file_is_found_when_the_checkpoint_is_opened() -> None:
    files = RecordingFiles()
    path = write_checkpoint(files, [OLD], blobs={"dense": b"weights"})
    size = files.size(f"{path}/table-0000.rows")
    files.truncate(f"{path}/table-0000.rows", size - 5)
    with pytest.raises(
        CheckpointCorrupt, match=f"at offset {size - 5}: the file has {size - 5} bytes instead of {size}"
    ):
        CheckpointReader(files, path)
    files.remove(f"{path}/table-0000.rows")
    with pytest.raises(CheckpointCorrupt, match=r"table-0000.rows at offset 0: the file is missing"):
        CheckpointReader(files, path)


def test_a_file_cut_while_it_is_read_is_found() -> None:
    files = RecordingFiles()
    reader = CheckpointReader(files, write_checkpoint(files, [OLD]))
    files.truncate(f"{reader.path}/table-0000.rows", 100)
    with pytest.raises(CheckpointCorrupt, match="at offset 100: the file ends"):
        list(reader.rows("users"))


def test_another_format_is_refused_by_its_number() -> None:
    files = RecordingFiles()
    path = write_checkpoint(files, [OLD])
    manifest = json.loads(files.read(f"{path}/manifest.json"))
    manifest["format"] = 2
    files.remove(f"{path}/manifest.json")
    files.create(f"{path}/manifest.json").write(json.dumps(manifest).encode())
    with pytest.raises(OtherFormat, match="format version 2, this build reads 1"):
        CheckpointReader(files, path)
    files.remove("/run/checkpoints/checkpoints.json")
    files.create("/run/checkpoints/checkpoints.json").write(b"{nonsense")
    with pytest.raises(CheckpointCorrupt, match="not a catalog of checkpoints"):
        CheckpointReader.newest(files, "/run/checkpoints")


def test_values_that_json_cannot_hold_are_refused_before_anything_is_named() -> None:
    files = RecordingFiles()
    writer = CheckpointWriter(files, "/c")
    writer.begin(1, 1, {"loss": float("nan")})
    writer.add_rows(OLD.spec, np.array([1]), OLD.rows_nb[:1], np.array([1]))
    with pytest.raises(ValueError, match="JSON"):
        writer.commit()
    assert files.list("/c") == []
