"""Rows for the benchmark ``index``: time per cold read from a row log of few rows and of many, dim 16, direct.

The log is filled through the SSD tier, ids as in ``index``, rows of random bytes, and flushed; then every segment is read once.
What is timed is ``get`` of batches of random ids by a few threads: the index, the disk, the checks. The two ends cannot be taken in
turn, so fio's reads of a file beside the log, between the windows, say what the disk gave at each.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.files import RealFiles
from pipeline.optim import RowwiseAdagradOptions, layout_of
from pipeline.rowlog.log import RowLog, RowLogOptions
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.store import SsdTier
from tools.bench.fio import fio_window, read_once, usable_engine, write_file
from tools.bench.jobs import scratch

TABLE, DIM, PUT_ROWS = "items", 16, 1 << 18
CALLERS, BATCH_ROWS = 4, 512
"""Several small batches at once: in a large one, many rows of the few would lie side by side and come in one read."""
ENDS = {True: (100_000, 1_000_000), False: (1_000_000, 100_000_000)}
WINDOWS = {True: (0.5, 3), False: (2.0, 7)}
"""Seconds of a window, windows; by whether it is to be quick."""
FIO_BYTES, FIO_JOBS = {True: 128 << 20, False: 1 << 30}, 4
GOAL = 1.3
SPREAD = np.int64(0x2545F4914F6CDD1D)
KNOBS = {"dim": DIM, "callers": CALLERS, "ids_per_call": BATCH_ROWS, "ids_per_put": PUT_ROWS, "ssd.direct": True}
Figures = tuple[str, str, str, bool | None]


@dataclass(frozen=True, slots=True)
class End:
    """What windows at one size took: microseconds a row, reads that reached the device a row, fio's reads a second."""

    rows: int
    us: list[float]
    reads_per_row: float
    iops: list[float]

    @property
    def text(self) -> str:
        fio = f" (fio {median(self.iops) / 1e3:.1f} k reads/s)" if self.iops else ""
        spread = f"{median(self.us):.2f} us ({min(self.us):.2f} to {max(self.us):.2f})"
        return f"{spread} in {self.reads_per_row:.2f} reads{fio} of {self.rows:,} rows"


def rows(quick: bool) -> list[Figures]:
    """Figures of both ends, and their ratio."""
    few, many = ENDS[quick]
    with scratch() as directory:
        tier = SsdTier(RowLog([str(directory / "log")], RealFiles(), lambda: RealReads(direct=True), RowLogOptions()))
        spec = TableSpec(TABLE, layout_of(RowwiseAdagradOptions(), DIM), Initializer(), 0)
        tier.open([spec])
        try:
            write_file(directory / "fio", FIO_BYTES[quick])
            ends, filled = [], 0
            for count in (few, many):
                began = time.perf_counter()
                _fill(tier, spec, filled, count, directory / "log")
                filled, took_s = count, time.perf_counter() - began
                ends.append(_measure(tier, count, directory / "fio", quick))
        finally:
            tier.close()
    ratio = median(ends[1].us) / median(ends[0].us)
    text = f"{ratio:.2f}x: {ends[0].text}; {ends[1].text}; filled in {took_s:.0f} s"
    return [(f"time per cold read of a row, {few:,} to {many:,} rows", text, f"<= {GOAL}x", ratio <= GOAL)]


def _fill(tier: SsdTier, spec: TableSpec, start: int, stop: int, directory: Path) -> None:
    rng = np.random.default_rng(0)
    noise_nb = rng.integers(0, 256, (PUT_ROWS, spec.layout.row_bytes), np.uint8)
    for first in range(start, stop, PUT_ROWS):
        ids_n = np.arange(first, min(first + PUT_ROWS, stop), dtype=np.int64) * SPREAD
        noise_nb ^= np.uint8(rng.integers(1, 256))
        tier.put(TABLE, ids_n, noise_nb[: len(ids_n)], np.full(len(ids_n), first + 1))
    tier.flush()
    for path in directory.glob("*.seg"):
        read_once(path)


def _measure(tier: SsdTier, count: int, fio_file: Path, quick: bool) -> End:
    window_s, windows = WINDOWS[quick]
    engine = usable_engine(fio_file)
    us, iops, before = [], [], tier.stats()
    for _ in range(windows):
        us.append(_window_us(tier, count, window_s))
        if engine is not None:
            iops.append(fio_window(fio_file, engine, FIO_JOBS, window_s).reads_per_s)
    after = tier.stats()
    reads = after["reads"] - before["reads"]
    return End(count, us, reads / (after["read_rows"] - before["read_rows"]), iops)


def _window_us(tier: SsdTier, count: int, seconds: float) -> float:
    end = time.perf_counter() + seconds

    def work(seed: int) -> int:
        rng, got = np.random.default_rng(seed), 0
        while time.perf_counter() < end:
            assert tier.get(TABLE, rng.integers(0, count, BATCH_ROWS) * SPREAD).found_n.all()
            got += BATCH_ROWS
        return got

    began = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as pool:
        got = sum(pool.map(work, range(CALLERS)))
    return (time.perf_counter() - began) / got * 1e6
