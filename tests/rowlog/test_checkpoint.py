"""What was written into a checkpoint comes back, all of it or some of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.files import RealFiles
from pipeline.rowlog import CheckpointReader, CheckpointWriter, NoCheckpoint, UnknownBlob, UnknownTable
from pipeline.rowlog.log import RowLogOptions, SavedTable
from pipeline.rowlog.log.real_reads import RealReads
from tests.files.recording import RecordingFiles
from tests.rowlog.files_reads import FilesReads
from tests.rowlog.tables import Table, newest, open_checkpoint, random_table, write_checkpoint


def check_rows(reader: CheckpointReader, table: Table) -> int:
    """Compare all rows with what was written; returns the number of chunks."""
    chunks = list(reader.rows(table.spec.name))
    assert np.concatenate([ids for ids, _, _ in chunks] or [table.ids_n[:0]]).tolist() == table.ids_n.tolist()
    assert b"".join(rows.tobytes() for _, rows, _ in chunks) == table.rows_nb.tobytes()
    assert b"".join(versions.tobytes() for _, _, versions in chunks) == table.versions_n.tobytes()
    return len(chunks)


@pytest.mark.usefixtures("small_chunks")
def test_tables_blobs_and_the_rest_come_back() -> None:
    files = RecordingFiles()
    tables = [
        random_table("users"),
        random_table("Items.v-2_", 77, dim=64),
        random_table("empty", 0),
        random_table("one", 1),
    ]
    path = write_checkpoint(files, tables, blobs={"dense.npz": b"\0weights", "empty": b""})
    assert path == "/run/checkpoints/step-000000000012"
    reader = newest(files)
    assert reader.tables == [table.spec for table in tables]
    assert [reader.num_rows(table.spec.name) for table in tables] == [table.ids_n.shape[0] for table in tables]
    assert [check_rows(reader, table) > 9 for table in tables] == [True, True, False, False]
    assert (reader.blob("dense.npz"), reader.blob("empty")) == (b"\0weights", b"")
    manifest = reader.manifest
    assert (manifest.step, manifest.generation, manifest.extra["nested"]) == (12, 2, {"a": [1, None, "ü"]})


def test_the_default_chunks_bound_memory_and_hold_many_rows(tmp_path: Path) -> None:
    table = random_table(count=200_000, dim=4)
    directory = str(tmp_path / "new" / "checkpoints")
    path = write_checkpoint(RealFiles(), [table], directory=directory, reads=RealReads, options=RowLogOptions())
    reader = CheckpointReader(RealFiles(), path)
    assert check_rows(reader, table) == 4
    assert all(chunk.rows_nb.nbytes <= 4 << 20 for chunk in reader.rows("users"))


@pytest.mark.usefixtures("small_chunks")
@given(st.data())
def test_find_says_what_a_dict_says(data: st.DataObject) -> None:
    table = random_table(count=data.draw(st.sampled_from([0, 1, 60])))
    files = RecordingFiles()
    reader = open_checkpoint(files, write_checkpoint(files, [table]))
    held = dict(zip(table.ids_n.tolist(), zip(table.rows_nb, table.versions_n.tolist(), strict=True), strict=True))
    some_id = st.sampled_from(table.ids_n.tolist()) if held else st.nothing()
    asked = data.draw(st.lists(st.one_of(some_id, st.integers(-(2**63), 2**63 - 1)), max_size=30))
    found = reader.find("users", asked)
    assert found.found_n.tolist() == [row_id in held for row_id in asked]
    for n, row_id in enumerate(asked):
        row, version = held.get(row_id, (np.zeros(table.spec.layout.row_bytes, np.uint8), 0))
        assert (found.rows_nb[n] == row).all()
        assert found.versions_n[n] == version


def test_find_reads_only_the_rows_it_needs() -> None:
    files, table = RecordingFiles(), random_table(count=500)
    reader = open_checkpoint(files, write_checkpoint(files, [table]))
    reader.find("users", table.ids_n[:1])  # reads the footers
    before = files.counts["read"]
    reader.find("users", table.ids_n[[7, 8]])
    assert files.counts["read"] == before + 2


def test_versions_are_told_without_reading_rows() -> None:
    files, table = RecordingFiles(), random_table(count=500)
    reader = open_checkpoint(files, write_checkpoint(files, [table]))
    found = {
        row_id: version
        for ids_n, versions_n in reader.versions("users")
        for row_id, version in zip(ids_n.tolist(), versions_n.tolist(), strict=True)
    }
    assert found == dict(zip(table.ids_n.tolist(), table.versions_n.tolist(), strict=True))


def test_the_same_state_makes_the_same_bytes() -> None:
    tables = [random_table("a"), random_table("b")]
    seen = []
    for _ in range(2):
        files = RecordingFiles()
        path = write_checkpoint(files, tables, blobs={"x": b"y"})
        paths = [
            f"{directory}/{name}" for directory in (path, "/run/checkpoints/rows") for name in files.list(directory)
        ]
        seen.append({path: files.read(path) for path in paths})
    assert seen[0] == seen[1]
    assert files.list(path) == ["blob-0000", "manifest.json"]


def test_the_manifest_describes_everything_with_relative_paths() -> None:
    files, table = RecordingFiles(), random_table()
    path = write_checkpoint(files, [table], blobs={"dense.npz": b"data"})
    manifest = json.loads(files.read(f"{path}/manifest.json"))
    assert manifest["format"] == 2
    described = manifest["tables"]["users"]
    assert described["columns"][1] == {"name": "momentum", "dtype": "float32", "width": 1, "role": "state"}
    assert described["initializer"] == {"kind": "normal", "low": -0.01, "high": 0.01, "mean": 0.1, "std": 0.25}
    assert (described["seed"], described["row_bytes"], described["num_rows"]) == (-7, 48, 300)
    names = files.list("/run/checkpoints/rows")
    assert [segment[0] for segment in described["segments"]] == [f"../rows/{name}" for name in names]
    assert [segment[2] for segment in described["segments"]] == [
        files.size(f"/run/checkpoints/rows/{name}") for name in names
    ]
    assert sum(segment[1] for segment in described["segments"]) == 300
    assert described["next_number"] == len(names) + 1
    assert manifest["blobs"]["dense.npz"]["size"] == 4


def test_a_run_that_was_moved_is_read_where_it_is() -> None:
    files, table = RecordingFiles(), random_table()
    write_checkpoint(files, [table])
    files.rename("/run", "/moved")
    reader = CheckpointReader.newest(files, "/moved/checkpoints", lambda: FilesReads(files))
    check_rows(reader, table)


def test_the_newest_stays_and_older_ones_as_told() -> None:
    files = RecordingFiles()
    held: list[str] = []
    for step in (5, 9, 9, 7):
        held.insert(0, write_checkpoint(files, [random_table(count=3)], step=step, keep=3))
    assert held == [f"/run/checkpoints/{name}" for name in ("step-000000000007", "step-000000000009-2", *STEPS)]
    left = ["checkpoints.json", "rows", *sorted(path.split("/")[-1] for path in held[:3])]
    assert files.list("/run/checkpoints") == left
    named = {segment.path for path in held[:3] for segment in open_checkpoint(files, path).saved.all_segments()}
    assert {f"/run/checkpoints/rows/{name}" for name in files.list("/run/checkpoints/rows")} == named
    assert newest(files).manifest.step == 7, "the last one written, not the highest"


STEPS = ("step-000000000009", "step-000000000005")


def test_what_is_not_there_is_named_with_what_is() -> None:
    files = RecordingFiles()
    files.make_dirs("/run/checkpoints")
    with pytest.raises(NoCheckpoint, match="/run/checkpoints holds no checkpoint: a run writes one at a clean end"):
        CheckpointReader.newest(files, "/run/checkpoints")
    reader = open_checkpoint(files, write_checkpoint(files, [random_table()], blobs={"dense.npz": b""}))
    with pytest.raises(UnknownTable, match=r"no table 'items'; it has \['users'\]"):
        reader.find("items", [1])
    with pytest.raises(UnknownBlob, match=r"no blob 'stages'; it has \['dense.npz'\]"):
        reader.blob("stages")


def test_a_writer_refuses_what_makes_no_sense() -> None:
    files, table = RecordingFiles(), random_table()
    saved = SavedTable((), 0, 1)
    writer = CheckpointWriter(files, "/c")
    with pytest.raises(ValueError, match="begin"):
        writer.add_table(table.spec, saved)
    writer.begin(1, 1, {})
    with pytest.raises(ValueError, match="is being written: commit or abort it first"):
        writer.begin(1, 1, {})
    writer.add_table(table.spec, saved)
    with pytest.raises(ValueError, match="was added before"):
        writer.add_table(table.spec, saved)
    assert files.list("/c") == [], "what was begun is gone"
    with pytest.raises(ValueError, match="keep is 0"):
        CheckpointWriter(files, "/c", keep=0)
