"""Tables with random rows, and checkpoints of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.files import Files
from pipeline.rowlog import CheckpointReader, CheckpointWriter, read_catalog
from pipeline.rowlog.log import Beginning, RowLog, RowLogOptions, RowReads, SavedRows
from pipeline.rows import Column, Initializer, RowLayout, TableSpec, pack_version
from tests.rowlog.files_reads import FilesReads
from tests.rowlog.logs import no_lock

EDGES = [-(2**63), -1, 0, 2**63 - 1]


@dataclass
class Table:
    """Rows in ascending order of ids."""

    spec: TableSpec
    ids_n: npt.NDArray[np.int64]
    rows_nb: npt.NDArray[np.uint8]
    versions_n: npt.NDArray[np.int64]


def random_table(name: str = "users", count: int = 300, dim: int = 5, generation: int = 2) -> Table:
    """Random ids (the extreme ones among them), bytes and versions; a state of two columns and a meta column."""
    rng = np.random.default_rng()
    layout = RowLayout(
        (
            Column("weight", "float32", dim, "weight"),
            Column("momentum", "float32", 1, "state"),
            Column("second", "float64", 2, "state"),
            Column("count", "int64", 1, "meta"),
        )
    )
    ids = np.unique(
        np.concatenate(
            [rng.integers(-(2**63), 2**63 - 1, max(count - len(EDGES), 0)), np.array(EDGES[:count], np.int64)]
        )
    )
    rows = rng.integers(0, 256, (ids.shape[0], layout.row_bytes), dtype=np.uint8)
    versions = rng.integers(1, 1000, (ids.shape[0],))
    versions += pack_version(generation, 0)
    return Table(TableSpec(name, layout, Initializer("normal", mean=0.1, std=0.25), -7), ids, rows, versions)


LOG = RowLogOptions(segment_bytes=4096, extent_bytes=4096, write_behind_bytes=1 << 20)
DIRECTORY = "/run/checkpoints"


def write_checkpoint(
    files: Files,
    tables: Sequence[Table],
    *,
    step: int = 12,
    keep: int = 1,
    blobs: Mapping[str, bytes] | None = None,
    directory: str = DIRECTORY,
    reads: Callable[[], RowReads] | None = None,
    options: RowLogOptions = LOG,
) -> str:
    """Write a full checkpoint with a log of its own, each table in uneven pieces, as a run does. Returns its directory."""
    reads = reads or (lambda: FilesReads(files))
    files.make_dirs(directory)
    found = [open_checkpoint(files, f"{directory}/{name}", reads) for name in read_catalog(files, directory)]
    beginning = Beginning(None, [one.saved for one in found])
    log = RowLog([f"{directory}/rows"], files, reads, options, no_lock, beginning)
    try:
        log.open([table.spec for table in tables])
        held = dict(zip([one.name for one in found], log.held, strict=True))
        writer, saved = CheckpointWriter(files, directory, keep=keep), save(log, tables)
        writer.begin(step, 2, {"reason": "test", "nested": {"a": [1, None, "ü"]}})
        for table in tables:
            writer.add_table(table.spec, saved.tables[table.spec.name])
        for name, data in (blobs or {}).items():
            writer.add_blob(name, data)
        path = writer.commit()
        for name in set(held) - set(writer.names):
            held[name].release()
        log.flush()
        return path
    finally:
        log.close()


def save(log: RowLog, tables: Sequence[Table]) -> SavedRows:
    mark = log.mark()
    for table in tables:
        for piece in np.array_split(np.arange(table.ids_n.shape[0]), 3):
            mark.save(table.spec.name, table.ids_n[piece], table.rows_nb[piece], table.versions_n[piece])
    return mark.seal()[0]


def open_checkpoint(files: Files, path: str, reads: Callable[[], RowReads] | None = None) -> CheckpointReader:
    return CheckpointReader(files, path, reads or (lambda: FilesReads(files)))


def newest(files: Files) -> CheckpointReader:
    return CheckpointReader.newest(files, DIRECTORY, lambda: FilesReads(files))
