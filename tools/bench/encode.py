"""encode: rows per second from a row source to synced cuts of the file transport, on one core.

The source is a matrix of trained-looking weights in memory, read in chunks by id as a store would be; everything behind it is the
product: coalescing, codec, digest, msgpack, zstd, checksums, segments, one fsync a cut. The goal is per core, so CPU seconds of the
process count, kernel included; the median cut is printed, with its wall time beside it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.rows.version import pack_version
from pipeline.session import environment
from pipeline.stream import RowStreamer, StreamerOptions, StreamIdentity
from pipeline.wire import FileTransport, StreamedTable
from tools.bench.report import BenchRow

NAME = "encode"
HELP = "rows encoded and published to the file transport, dim 64, by each codec"

GOAL_ROWS_PER_S = 2_000_000
WARM_UP_CUTS = 2
DIM = 64
CODECS = ("fp16", "fp32", "bf16", "int8", "int4")
TABLE = "items"
Int64s = npt.NDArray[np.int64]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Rows:
    rows_nb: npt.NDArray[np.uint8]
    versions_n: Int64s
    held_n: npt.NDArray[np.bool_]


class ArraySource:
    """A RowSource over one matrix: row ``id`` belongs to ``id``. Snapshots need not be kept: nothing trains meanwhile."""

    def __init__(self, num_rows: int, codec: str) -> None:
        self.layout = RowLayout((Column("weight", "float32", DIM, "weight"),))
        self.tables: Sequence[StreamedTable] = (StreamedTable(TableSpec(TABLE, self.layout, Initializer(), 1), codec),)
        rng = np.random.default_rng(0)
        self.weights_nd = rng.standard_normal((num_rows, DIM), dtype=np.float32) * np.float32(0.05)
        self.rows_nb = self.weights_nd.view(np.uint8)
        self.versions_n = np.zeros(num_rows, dtype=np.int64)
        self.step = 0

    def touch(self, ids_n: Int64s) -> None:
        self.step += 1
        self.versions_n[ids_n] = pack_version(1, self.step)

    def at_fence(self, call: Callable[[int], Result]) -> Result:
        return call(self.step)

    def freeze(self, changed: Any, *, changed_since: int) -> ArraySource:  # noqa: ARG002
        return self

    def dense(self) -> Mapping[str, npt.NDArray[Any]]:
        return {}

    def ids(self, table: str) -> Int64s:  # noqa: ARG002
        return np.flatnonzero(self.versions_n)

    def read(self, ids: Mapping[str, Int64s]) -> Rows:
        ids_n = ids[TABLE]
        return Rows(np.take(self.rows_nb, ids_n, axis=0), self.versions_n[ids_n], np.ones(len(ids_n), dtype=np.bool_))

    def encode(self, *_: Any) -> None:
        """In the general way: cuts here are longer than a frame."""

    def close(self) -> None:
        """Nothing is held."""


def run(quick: bool) -> list[BenchRow]:
    """Rows per CPU second for each codec, and the bytes of a row on the wire."""
    environment.keep_freed_memory()  # as every run does
    return [_measure(codec, quick) for codec in CODECS]


def _measure(codec: str, quick: bool) -> BenchRow:
    num_rows, ids_per_cut, num_cuts = (200_000, 50_000, 6) if quick else (1_000_000, 100_000, 40)
    source = ArraySource(num_rows, codec)
    options = StreamerOptions()
    with tempfile.TemporaryDirectory() as directory:
        transport = FileTransport(directory)
        streamer = RowStreamer(source, transport, StreamIdentity("bench", "bench", 1), options)
        streamer.open()
        batches = [
            np.sort(np.random.default_rng(k).choice(num_rows, ids_per_cut, replace=False)) for k in range(num_cuts)
        ]
        for ids_n in batches[:WARM_UP_CUTS]:
            _cut(source, streamer, ids_n)
        sent = streamer.counters.bytes_streamed
        times = [_cut(source, streamer, ids_n) for ids_n in batches[WARM_UP_CUTS:]]
        sent = streamer.counters.bytes_streamed - sent
        transport.close()
    rows = ids_per_cut * len(times)
    cpu_s, wall_s = (median(column) for column in zip(*times, strict=True))
    per_cpu = ids_per_cut / cpu_s
    return BenchRow(
        bench=NAME,
        what=f"rows encoded and published, dim {DIM}, {codec}",
        measured=f"{per_cpu / 1e6:.2f} M rows/s per core ({ids_per_cut / wall_s / 1e6:.2f} M/s wall), {sent / rows:.0f} B/row",
        goal=f">= {GOAL_ROWS_PER_S / 1e6:.0f} M rows/s per core" if codec == "fp16" else "-",
        met=per_cpu >= GOAL_ROWS_PER_S if codec == "fp16" else None,
        knobs={
            "rows_per_cut": ids_per_cut,
            "chunk_rows": options.chunk_rows,
            "zstd_level": options.zstd_level,
            "shuffle": options.shuffle,
            "fsync": "every cut",
        },
    )


def _cut(source: ArraySource, streamer: RowStreamer, ids_n: Int64s) -> tuple[float, float]:
    """CPU and wall seconds of one cut."""
    source.touch(ids_n)
    streamer.add(source.step, time.time_ns(), {TABLE: ids_n})
    wall, cpu = time.perf_counter(), time.process_time()
    streamer.cut()
    return time.process_time() - cpu, time.perf_counter() - wall
