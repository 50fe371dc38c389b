"""An export is a file that its own library reads, equal to the rows, written in bounded memory and whole or not at all."""

from __future__ import annotations

import errno
import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from pipeline.files import DiskFull, RealFiles
from pipeline.rowlog import CheckpointReader, ExportFailed, UnknownBlob, export_dense, export_table
from pipeline.rowlog.log import RowLogOptions
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.rows import unpack_versions
from tests.files.recording import RecordingFiles
from tests.rowlog.tables import Table, open_checkpoint, random_table, write_checkpoint


def exported(files: RecordingFiles, out: str) -> dict[str, npt.NDArray[Any]]:
    return arrays_in(files.read(out), out)


def arrays_in(data: bytes, name: str) -> dict[str, npt.NDArray[Any]]:
    """As the library reads it whose form the name tells."""
    if name.endswith(".safetensors"):
        return dict(safetensors.numpy.load(data))
    if name.endswith(".parquet"):
        return of_parquet(pq.read_table(io.BytesIO(data)))
    with np.load(io.BytesIO(data)) as archive:
        return {array: archive[array] for array in archive}


def of_parquet(table: Any) -> dict[str, npt.NDArray[Any]]:
    found = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        flat, width = column.combine_chunks(), 1
        if pa.types.is_fixed_size_list(column.type):
            flat, width = flat.flatten(), column.type.list_size
        values = flat.to_numpy(zero_copy_only=False)
        found[name] = values.reshape(-1, width) if pa.types.is_fixed_size_list(column.type) else values
    return found


def check(found: dict[str, npt.NDArray[Any]], table: Table) -> None:
    layout = table.spec.layout
    wanted = {
        "ids": table.ids_n,
        "weights": layout.view(table.rows_nb, "weight"),
        "version": unpack_versions(table.versions_n),
        "state_momentum": layout.view(table.rows_nb, "momentum"),
        "state_second": layout.view(table.rows_nb, "second"),
        "meta_count": layout.view(table.rows_nb, "count"),
    }
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape), name
        assert found[name].tobytes() == np.ascontiguousarray(values).tobytes(), name


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("name", ["users", "users.npz", "users.parquet", "users.safetensors"])
@pytest.mark.parametrize("count", [0, 1, 500])
def test_a_table_is_exported_bit_for_bit(count: int, name: str) -> None:
    files, table = RecordingFiles(), random_table(count=count)
    reader = open_checkpoint(files, write_checkpoint(files, [random_table("other"), table]))
    files.make_dirs("/out")
    out = f"/out/{name}"
    export_table(reader, "users", out)
    check(exported(files, out), table)
    assert files.list("/out") == [name], "the name is taken as it is, and nothing else is left"
    first = files.read(out)
    export_table(reader, "users", out)
    assert files.read(out) == first, "the same checkpoint gives the same bytes"


@pytest.mark.usefixtures("small_chunks")
def test_parquet_is_read_row_group_by_row_group_and_column_by_column() -> None:
    files, table = RecordingFiles(), random_table(count=500)
    export_table(open_checkpoint(files, write_checkpoint(files, [table])), "users", "/run/users.parquet")
    file = pq.ParquetFile(io.BytesIO(files.read("/run/users.parquet")))
    assert file.num_row_groups > 1
    groups = [file.read_row_group(n, columns=["ids"])["ids"].to_numpy() for n in range(file.num_row_groups)]
    assert np.concatenate(groups).tobytes() == table.ids_n.tobytes()


@pytest.mark.parametrize("name", ["users.npz", "users.parquet", "users.safetensors"])
def test_a_large_table_takes_little_memory(tmp_path: Path, name: str) -> None:
    table = random_table(count=200_000, dim=100)
    path = write_checkpoint(RealFiles(), [table], directory=str(tmp_path), reads=RealReads, options=RowLogOptions())
    reader = CheckpointReader(RealFiles(), path)
    tracemalloc.start()
    arrow_before = pa.default_memory_pool().max_memory()
    export_table(reader, "users", str(tmp_path / name))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak + pa.default_memory_pool().max_memory() - arrow_before < table.rows_nb.nbytes / 3
    check(arrays_in((tmp_path / name).read_bytes(), name), table)


def test_dense_weights_are_the_bytes_of_their_blob() -> None:
    files = RecordingFiles()
    reader = open_checkpoint(files, write_checkpoint(files, [], blobs={"dense.npz": b"an npz"}))
    export_dense(reader, "/run/dense.npz")
    assert files.read("/run/dense.npz") == b"an npz"
    for name in ("dense.parquet", "dense.safetensors"):
        with pytest.raises(ExportFailed, match="the dense weights are written as npz"):
            export_dense(reader, f"/run/{name}")
        assert not files.exists(f"/run/{name}")
    with pytest.raises(UnknownBlob):
        export_dense(open_checkpoint(files, write_checkpoint(files, [])), "/run/dense.npz")


@pytest.mark.parametrize("name", ["users.npz", "users.parquet", "users.safetensors"])
def test_a_full_disk_leaves_the_old_export_and_no_other_file(name: str) -> None:
    files, table = RecordingFiles(), random_table()
    reader = open_checkpoint(files, write_checkpoint(files, [table]))
    export_table(reader, "users", f"/run/{name}")
    for at in range(1, 9 if name.endswith("npz") else 3):
        files.fail("write", at=at, code=errno.ENOSPC)
        with pytest.raises(DiskFull, match="did not fit"):
            export_table(reader, "users", f"/run/{name}")
        files.heal()
        assert files.list("/run") == ["checkpoints", name]
    check(exported(files, f"/run/{name}"), table)


def test_a_missing_directory_is_named() -> None:
    files = RecordingFiles()
    reader = open_checkpoint(files, write_checkpoint(files, [random_table()], blobs={"dense.npz": b""}))
    with pytest.raises(ExportFailed, match=r"cannot write /nowhere/x.npz: there is no directory /nowhere; make it"):
        export_table(reader, "users", "/nowhere/x.npz")
    with pytest.raises(ExportFailed, match="there is no directory /nowhere"):
        export_dense(reader, "/nowhere/x.npz")
