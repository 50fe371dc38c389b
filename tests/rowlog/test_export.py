"""An export is an npz that numpy reads, equal to the rows, written in bounded memory and whole or not at all."""

from __future__ import annotations

import errno
import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.files import DiskFull, RealFiles
from pipeline.rowlog import CheckpointReader, ExportFailed, UnknownBlob, export_dense, export_table
from pipeline.rowlog.log import RowLogOptions
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.rows import unpack_versions
from tests.files.recording import RecordingFiles
from tests.rowlog.tables import Table, open_checkpoint, random_table, write_checkpoint


def exported(files: RecordingFiles, out: str) -> dict[str, npt.NDArray[Any]]:
    with np.load(io.BytesIO(files.read(out))) as archive:
        return {name: archive[name] for name in archive}


def check(found: dict[str, npt.NDArray[Any]], table: Table) -> None:
    layout = table.spec.layout
    wanted = {
        "ids": table.ids_n,
        "weights": layout.view(table.rows_nb, "weight"),
        "version": unpack_versions(table.versions_n),
        "state_momentum": layout.view(table.rows_nb, "momentum"),
        "state_second": layout.view(table.rows_nb, "second"),
    }
    assert list(found) == list(wanted), "meta columns are not exported"
    for name, values in wanted.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape), name
        assert found[name].tobytes() == np.ascontiguousarray(values).tobytes(), name


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("count", [0, 1, 500])
def test_a_table_is_exported_bit_for_bit(count: int) -> None:
    files, table = RecordingFiles(), random_table(count=count)
    reader = open_checkpoint(files, write_checkpoint(files, [random_table("other"), table]))
    files.make_dirs("/out")
    export_table(reader, "users", "/out/users")
    check(exported(files, "/out/users"), table)
    assert files.list("/out") == ["users"], "the name is taken as it is, and nothing else is left"
    first = files.read("/out/users")
    export_table(reader, "users", "/out/users")
    assert files.read("/out/users") == first, "the same checkpoint gives the same bytes"


def test_a_large_table_takes_little_memory(tmp_path: Path) -> None:
    table = random_table(count=200_000, dim=100)
    path = write_checkpoint(RealFiles(), [table], directory=str(tmp_path), reads=RealReads, options=RowLogOptions())
    reader = CheckpointReader(RealFiles(), path)
    tracemalloc.start()
    export_table(reader, "users", str(tmp_path / "users.npz"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < table.rows_nb.nbytes / 3
    with np.load(tmp_path / "users.npz") as archive:
        check(dict(archive), table)


def test_dense_weights_are_the_bytes_of_their_blob() -> None:
    files = RecordingFiles()
    reader = open_checkpoint(files, write_checkpoint(files, [], blobs={"dense.npz": b"an npz"}))
    export_dense(reader, "/run/dense.npz")
    assert files.read("/run/dense.npz") == b"an npz"
    with pytest.raises(UnknownBlob):
        export_dense(open_checkpoint(files, write_checkpoint(files, [])), "/run/dense.npz")


def test_a_full_disk_leaves_the_old_export_and_no_other_file() -> None:
    files, table = RecordingFiles(), random_table()
    reader = open_checkpoint(files, write_checkpoint(files, [table]))
    export_table(reader, "users", "/run/users.npz")
    for at in range(1, 9):
        files.fail("write", at=at, code=errno.ENOSPC)
        with pytest.raises(DiskFull, match="did not fit"):
            export_table(reader, "users", "/run/users.npz")
        files.heal()
        assert files.list("/run") == ["checkpoints", "users.npz"]
    check(exported(files, "/run/users.npz"), table)


def test_a_missing_directory_is_named() -> None:
    files = RecordingFiles()
    reader = open_checkpoint(files, write_checkpoint(files, [random_table()], blobs={"dense.npz": b""}))
    with pytest.raises(ExportFailed, match=r"cannot write /nowhere/x.npz: there is no directory /nowhere; make it"):
        export_table(reader, "users", "/nowhere/x.npz")
    with pytest.raises(ExportFailed, match="there is no directory /nowhere"):
        export_dense(reader, "/nowhere/x.npz")
