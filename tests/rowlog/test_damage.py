"""A checkpoint survives every crash, and no damaged byte of one is taken for data."""

from __future__ import annotations

import errno
import json
import random
from collections.abc import Callable

import pytest

from pipeline.files import DiskFull
from pipeline.rowlog import CheckpointCorrupt, CheckpointReader, CheckpointWriter, OtherFormat
from pipeline.rowlog.log import LogCorrupt, LogFailed, SavedTable
from tests.files.nodes import OUTCOMES, Outcome
from tests.files.recording import Crashed, RecordingFiles
from tests.rowlog.tables import Table, newest, open_checkpoint, random_table, write_checkpoint

pytestmark = pytest.mark.usefixtures("small_chunks")
OLD, NEW = random_table(count=30), random_table(count=40)


def read_all(reader: CheckpointReader) -> tuple[bytes, bytes]:
    rows = b"".join(ids.tobytes() + rows.tobytes() + v.tobytes() for ids, rows, v in reader.rows("users"))
    return rows, reader.blob("dense")


def expected(table: Table, step: int) -> tuple[bytes, bytes]:
    files = RecordingFiles()
    return read_all(open_checkpoint(files, write_checkpoint(files, [table], step=step, blobs={"dense": b"%d" % step})))


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
            except (Crashed, LogFailed):
                pass
            after = files.after_crash(outcome, random.Random(seed))
            found = read_all(newest(after))
            assert found in ((new,) if done else (old, new)), f"crash at call {crash_at}: {files.calls[-1]}"
            write_checkpoint(after, [OLD], step=2)
            check_files(after)
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
        except (DiskFull, LogFailed):
            failed += 1
        for disk in (files, files.after_crash("drop")):
            assert read_all(newest(disk)) in (old, new)
        files.heal()
        write_checkpoint(files, [NEW], step=3, blobs={"dense": b"2"})
        check_files(files)
    assert failed > 0


def check_files(files: RecordingFiles) -> None:
    """One checkpoint, and the segments it names."""
    reader = newest(files)
    assert files.list("/run/checkpoints") == ["checkpoints.json", "rows", reader.name]
    named = {segment.path for segment in reader.saved.all_segments()}
    assert {f"/run/checkpoints/rows/{name}" for name in files.list("/run/checkpoints/rows")} == named


@pytest.mark.parametrize(("kind", "at"), [("sync", 1), ("rename", 1), ("sync_dir", 1), ("rename", 2), ("sync_dir", 3)])
def test_a_writer_whose_commit_failed_can_begin_again(kind: str, at: int) -> None:
    files = RecordingFiles()
    writer = CheckpointWriter(files, "/c")
    for step in (1, 2):
        writer.begin(step, 1, {})
        writer.add_table(OLD.spec, SavedTable((), 0, 1))
        if step == 1:
            files.fail(kind, at=at)
            with pytest.raises(OSError, match="/c"):
                writer.commit()
    assert writer.commit() == "/c/step-000000000002"
    assert files.list("/c") == ["checkpoints.json", "step-000000000002"]


def test_a_flipped_byte_is_found_and_placed_or_changes_nothing() -> None:
    """What lies between records, and behind a header, is nothing."""
    files = RecordingFiles()
    path = write_checkpoint(files, [OLD], blobs={"dense": b"some dense weights"})
    good = read_all(open_checkpoint(files, path))
    rng, found = random.Random(), 0
    for directory in (path, "/run/checkpoints/rows"):
        for name in files.list(directory):
            file = f"{directory}/{name}"
            size = files.size(file)
            for offset in sorted({0, size - 1, *(rng.randrange(size) for _ in range(150))}):
                mask = 1 << rng.randrange(8)
                files.flip(file, offset, mask)
                error = error_of(lambda: read_all(open_checkpoint(files, path)), good)
                if isinstance(error, (CheckpointCorrupt, LogCorrupt)):
                    assert error.path == file
                    assert error.offset <= offset
                    assert f"{file} at offset {error.offset}" in str(error)
                assert error is not None or file.endswith(".seg")
                assert error is None or file in str(error)
                found += error is not None
                files.flip(file, offset, mask)
    assert found > 100
    assert read_all(open_checkpoint(files, path)) == good


def error_of(call: Callable[[], object], expected: object) -> Exception | None:
    """What it raises, if it does not return what is expected."""
    try:
        found = call()
    except (CheckpointCorrupt, LogCorrupt, OtherFormat) as error:
        return error
    assert found == expected
    return None


def test_a_damaged_record_is_named_and_other_rows_are_read() -> None:
    files, table = RecordingFiles(), random_table(count=100)
    reader = open_checkpoint(files, write_checkpoint(files, [table]))
    segment = reader.saved.tables["users"].segments[1]
    files.flip(segment.path, 4096 + 3)
    with pytest.raises(
        LogCorrupt, match=f"{segment.path} at offset 4096: the record of id .* of table 'users'"
    ) as raised:
        list(reader.rows("users"))
    reader.find("users", table.ids_n[:1])
    with pytest.raises(LogCorrupt, match="at offset 4096"):
        reader.find("users", [int(str(raised.value).split("id ")[1].split()[0])])


def test_a_torn_or_missing_file_is_found_when_the_checkpoint_is_opened() -> None:
    files = RecordingFiles()
    path = write_checkpoint(files, [OLD], blobs={"dense": b"weights"})
    segment = open_checkpoint(files, path).saved.tables["users"].segments[0]
    left = segment.size - 5
    files.truncate(segment.path, left)
    with pytest.raises(
        CheckpointCorrupt, match=f"{segment.path} at offset {left}: the file has {left} bytes instead of {segment.size}"
    ):
        open_checkpoint(files, path)
    files.remove(segment.path)
    with pytest.raises(CheckpointCorrupt, match=f"{segment.path} at offset 0: the file is missing"):
        open_checkpoint(files, path)


def test_a_file_cut_while_it_is_read_is_found() -> None:
    files = RecordingFiles()
    reader = open_checkpoint(files, write_checkpoint(files, [OLD]))
    segment = reader.saved.tables["users"].segments[0]
    files.truncate(segment.path, 100)
    with pytest.raises(LogCorrupt, match=f"{segment.path} at offset 100: the file ends"):
        list(reader.rows("users"))


def test_another_format_is_refused_by_its_number() -> None:
    files = RecordingFiles()
    path = write_checkpoint(files, [OLD])
    manifest = json.loads(files.read(f"{path}/manifest.json"))
    manifest["format"] = 1
    files.remove(f"{path}/manifest.json")
    files.create(f"{path}/manifest.json").write(json.dumps(manifest).encode())
    with pytest.raises(OtherFormat, match="format version 1, this build reads 2"):
        open_checkpoint(files, path)
    files.remove("/run/checkpoints/checkpoints.json")
    files.create("/run/checkpoints/checkpoints.json").write(b"{nonsense")
    with pytest.raises(CheckpointCorrupt, match="not a catalog of checkpoints"):
        newest(files)


def test_values_that_json_cannot_hold_are_refused_before_anything_is_named() -> None:
    files = RecordingFiles()
    writer = CheckpointWriter(files, "/c")
    writer.begin(1, 1, {"loss": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        writer.commit()
    assert files.list("/c") == []
