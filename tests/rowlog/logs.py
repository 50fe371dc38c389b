"""Row logs for tests: small tables, a dict that knows what they should hold, and a disk in memory or a real one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.files import Files, RealFiles
from pipeline.rowlog.log import RowLog, RowLogOptions
from pipeline.rowlog.log.log_table import LogTable
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.rowlog.log.segment_format import TRAILER_BYTES, decode_footer, decode_trailer
from pipeline.rows import Column, Initializer, RowLayout, TableSpec
from tests.files.recording import RecordingFiles
from tests.rowlog.files_reads import FilesReads

Int64s = npt.NDArray[np.int64]
RowBytes = npt.NDArray[np.uint8]
VERSION_BITS = (1 << 63) - 1
DISKS = ("/a", "/b")


def table(name: str, dim: int, states: int = 0) -> TableSpec:
    columns = [Column("weight", "float32", dim, "weight")]
    columns += [Column("momentum", "float32", states, "state")] if states else []
    return TableSpec(name, RowLayout(tuple(columns)), Initializer(), 7)


NARROW, WIDE = table("narrow", 130), table("wide", 201, 2)
"""7 records in a block of 4 KiB; 4 in 4 KiB, across the ends of blocks."""
SPECS = (NARROW, WIDE)
TINY = RowLogOptions(segment_bytes=4096, extent_bytes=4096, write_behind_bytes=16384)


def ids_of(values: Sequence[int]) -> Int64s:
    return np.array(values, dtype=np.int64)


def rows_of(spec: TableSpec, ids_n: Int64s, version: int) -> RowBytes:
    """Rows that tell whose they are, and of which version."""
    words = -(-spec.layout.row_bytes // 8)
    with np.errstate(over="ignore"):
        first_n = ids_n.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(version)
        words_nw = first_n[:, None] * (2 * np.arange(words, dtype=np.uint64) + np.uint64(1))
    return np.ascontiguousarray(words_nw.view(np.uint8)[:, : spec.layout.row_bytes])


def no_lock(_directory: str) -> AbstractContextManager[object]:
    return nullcontext()


def log_in_memory(files: RecordingFiles, options: RowLogOptions = TINY, specs: Sequence[TableSpec] = SPECS) -> RowLog:
    """Opened, on two disks."""
    log = RowLog(DISKS, files, lambda: FilesReads(files), options, no_lock)
    log.open(specs)
    return log


def log_on_disk(directory: str, options: RowLogOptions = TINY, specs: Sequence[TableSpec] = SPECS) -> RowLog:
    """Opened, in two directories."""
    paths = [os.path.join(directory, name) for name in ("a", "b")]
    log = RowLog(paths, RealFiles(), lambda: RealReads(depth=4), options)
    log.open(specs)
    return log


@dataclass
class Model:
    """What a log should hold: of each table and id, the version of its row. Rows are ``rows_of``."""

    specs: Sequence[TableSpec] = SPECS
    versions: dict[str, dict[int, int]] = field(default_factory=dict)
    version: int = 0

    def __post_init__(self) -> None:
        self.versions = {spec.name: {} for spec in self.specs}

    def put(self, log: RowLog, spec: TableSpec, ids: Sequence[int]) -> None:
        """Put rows of a new version."""
        self.version += 1
        ids_n = ids_of(ids)
        log.put(spec.name, ids_n, rows_of(spec, ids_n, self.version), np.full(len(ids), self.version))
        self.versions[spec.name].update(dict.fromkeys(ids, self.version))

    def delete(self, log: RowLog, spec: TableSpec, ids: Sequence[int]) -> None:
        log.delete(spec.name, ids_of(ids))
        for row_id in ids:
            self.versions[spec.name].pop(row_id, None)

    def check(self, log: RowLog, spec: TableSpec, ids: Sequence[int]) -> None:
        """What ``get`` answers."""
        ids_n = ids_of(ids)
        rows, found_n = log.get(spec.name, ids_n)
        held = self.versions[spec.name]
        assert found_n.tolist() == [row_id in held for row_id in ids]
        versions_n = ids_of([held.get(row_id, 0) for row_id in ids])
        assert rows.versions_n.tolist() == versions_n.tolist()
        for version in set(versions_n.tolist()):
            of_n = versions_n == version
            assert np.array_equal(
                rows.rows_nb[of_n], rows_of(spec, ids_n[of_n], version) if version else 0 * rows.rows_nb[of_n]
            )

    def check_all(self, log: RowLog) -> None:
        for spec in self.specs:
            self.check(log, spec, list(self.versions[spec.name]))
            assert sorted(log.table(spec.name).ids().tolist()) == sorted(self.versions[spec.name])


def num_records(held: LogTable) -> int:
    return sum(segment.num_rows for segment in held.all_segments())


def check_counts(held: LogTable) -> None:
    """Every row is counted as live exactly once."""
    with held.lock:
        segments = list(held.segments.values())
        assert sum(segment.live for segment in segments) == held.index.count
        assert all(0 <= segment.live <= segment.num_rows for segment in segments)


def check_space(log: RowLog) -> None:
    """For a log that was compacted: no more records than the options allow."""
    for held in log.tables.values():
        most = log.options.max_space * held.index.count + held.slack_rows
        assert num_records(held) <= most, f"{num_records(held)} records of {held.index.count} rows"


def segment_paths(log: RowLog, files: Files) -> list[str]:
    names = [(directory, name) for directory in log.directories for name in files.list(directory)]
    return [os.path.join(directory, name) for directory, name in names if name.endswith(".seg")]


def check_disk(log: RowLog, files: Files) -> None:
    """For a log at rest: the files are those of the segments it knows, and nothing else."""
    known = {segment.path for held in log.tables.values() for segment in held.all_segments()}
    assert set(segment_paths(log, files)) == known


def read_footers(log: RowLog, files: Files, spec: TableSpec) -> dict[int, int]:
    """Ids and versions as somebody finds them who has only the footers: of a log that was just flushed."""
    found: dict[int, tuple[int, bool]] = {}
    for path in segment_paths(log, files):
        if os.path.basename(path).startswith(f"{spec.name}-"):
            data = files.read(path)
            count, digest, offset = decode_trailer(path, data[-TRAILER_BYTES:], len(data))
            footer = decode_footer(path, data[offset:-TRAILER_BYTES], count, digest, offset)
            for row_id, version in zip(footer.ids_n.tolist(), footer.versions_n.tolist(), strict=True):
                found[row_id] = max(found.get(row_id, (-1, False)), (version & VERSION_BITS, version < 0))
    return {row_id: version for row_id, (version, is_dead) in found.items() if not is_dead}


@contextlib.contextmanager
def standing_still(log: RowLog) -> Iterator[None]:
    """Everything is in files, and no compaction goes on."""
    with log._compactor._one_at_a_time:
        log.flush()
        log._writer.drain()  # sealing a segment may have found that its file can go: that comes behind the flush
        yield


@contextlib.contextmanager
def closing(log: RowLog) -> Iterator[RowLog]:
    try:
        yield log
    finally:
        log.close()
