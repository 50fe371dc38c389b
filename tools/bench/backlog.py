"""backlog: a broker that is gone while every row of a table changes: what the memory of the process grows by, and how long it takes to
catch up once the broker is back.

All rows are in the store before, and one step has run: what grows then is what waits to be published. Steps train as fast as they can
meanwhile; every few steps a cut is tried and fails. Catching up is one cut and the mark of the end, while nothing trains.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from cuda.backend import UpdateRule
from cuda.host import HostBackend
from cuda.plan import NONE, BatchIds, FeatureSet, Matrix
from pipeline.flow.run_info import RunInfo
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.session import environment
from pipeline.session.row_source import StoreRowSource
from pipeline.store import DramTier, Store, StoreOptions
from pipeline.stream import GroupedIds, StreamerOptions, StreamIdentity
from pipeline.stream.streamer import RowStreamer
from pipeline.wire import FileTransport, Position, TransportError
from tools.bench.report import BenchRow

NAME = "backlog"
HELP = "a stalled broker while every row changes: memory growth, and the time to catch up"

DIM, STEP_IDS, CUT_EVERY = 16, 100_000, 10
GOAL_S = 30.0
TABLE = "rows"


class Stalled(FileTransport):
    """``is_down``: nothing can be published."""

    is_down = False

    def publish(self, frames: Sequence[bytes], *, sync: bool) -> Position:
        if self.is_down:
            raise TransportError("the broker does not answer")
        return super().publish(frames, sync=sync)


def run(quick: bool) -> list[BenchRow]:
    environment.keep_freed_memory()  # as every run does
    count = 1_000_000 if quick else 10_000_000
    return [_measure(count, megabytes) for megabytes in ((256, 4) if quick else (256, 32))]


def _measure(count: int, megabytes: int) -> BenchRow:
    columns = Column("weight", "float32", DIM, "weight"), Column("momentum", "float32", 1, "state")
    spec = TableSpec(TABLE, RowLayout(columns), Initializer(), 0)
    features = FeatureSet((TABLE,), np.zeros(1, np.int32), np.full(1, DIM, np.int32), np.full(1, NONE, np.int32), 1)
    rule = UpdateRule("rowwise_adagrad", (0.01, 1e-8))
    options = StoreOptions(l1_rows=2 * STEP_IDS, shadow_bytes=64 << 20)
    store = Store([spec], [rule], features, HostBackend(2), DramTier(), options)
    store.open()
    try:
        with tempfile.TemporaryDirectory() as directory:
            for start in range(0, count, STEP_IDS):
                rows_nb = spec.layout.empty(STEP_IDS)
                rows_nb[:] = 0
                store.load_rows(TABLE, np.arange(start, start + STEP_IDS), rows_nb, np.zeros(STEP_IDS, np.int64))
            return _stall(store, spec, features, Path(directory), count, megabytes)
    finally:
        store.close()
        gc.collect()


def _stall(
    store: Store, spec: TableSpec, features: FeatureSet, directory: Path, count: int, megabytes: int
) -> BenchRow:
    transport = Stalled(str(directory / "stream"))
    source = StoreRowSource(store, [spec], torch.nn.Module(), RunInfo("bench", directory, 0, 1)).with_tables("fp16")
    options = StreamerOptions(backlog_bytes=megabytes << 20)
    streamer = RowStreamer(source, transport, StreamIdentity("bench", "bench", 1), options)
    streamer.open()
    store.on_step(lambda step, plan: _tell(streamer, step, plan))
    ids_n = np.random.default_rng(0).permutation(count)
    _step(store, features, 1, ids_n[:STEP_IDS])
    streamer.cut()
    before = grown = resident_bytes()
    transport.is_down = True
    for step, start in enumerate(range(0, count, STEP_IDS), 2):
        _step(store, features, step, ids_n[start : start + STEP_IDS])
        if streamer.changed.crowded:
            streamer.changed.compact()
        if step % CUT_EVERY == 0:
            with suppress(TransportError):
                streamer.cut()
        grown = max(grown, resident_bytes())
    transport.is_down = False
    began = time.perf_counter()
    streamer.finish()
    caught_up_s = time.perf_counter() - began
    peak = max(grown, resident_bytes())
    assert not streamer.is_behind
    assert streamer.counters.rows_streamed >= count
    transport.close()
    growth = (grown - before) / 2**20
    return BenchRow(
        bench=NAME,
        what=f"{count:,} distinct changed rows, backlog_bytes {megabytes} MiB",
        measured=f"grew by {growth:.0f} MiB, caught up in {caught_up_s:.1f} s",
        goal=f"<= {megabytes} MiB; < {GOAL_S:.0f} s",
        met=growth <= megabytes and caught_up_s < GOAL_S,
        knobs={
            "dim": DIM,
            "codec": "fp16",
            "rows_a_step": STEP_IDS,
            "collapses": streamer.changed.collapses,
            "MiB at the end of the catch-up": round((peak - before) / 2**20),
            "transport": "file",
        },
    )


def _tell(streamer: RowStreamer, step: int, plan: object) -> None:
    unique = plan.unique  # type: ignore[attr-defined]
    streamer.add(step, time.time_ns(), GroupedIds((TABLE,), unique.ids_u, unique.table_start_t), unique.count)


def _step(store: Store, features: FeatureSet, step: int, ids_n: np.ndarray) -> None:
    count = ids_n.shape[0]
    starts = np.array([0, count], np.int64)
    batch = BatchIds(features, count, ids_n, starts, np.arange(count + 1, dtype=np.int64)[None], None)
    reservation = store.try_reserve(step, batch, store.backend.deduplicate(batch))
    assert reservation is not None
    store.read_misses(reservation)
    store.update(reservation, [Matrix.of(np.ones((count, DIM), np.float32))])
    store.release(reservation)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
