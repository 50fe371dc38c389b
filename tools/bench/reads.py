"""reads: random rows from a file, cold, against what fio gets from the same file; and warm, out of the page cache.

All sides read one file of written data in short windows, in turn; a ratio is the median of those of neighbouring windows. Rows lie at
random bytes, so some cross a block's bound and a few are read together with a neighbour: rows and the reads that reached the device
are printed side by side, and the reads are what is held against fio, which reads whole blocks of 4 KiB at depth 32: by one thread, and
by four that share the depth, as one alone starves where processors are busy. In each round the faster of the two counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np

from pipeline.rowlog import RandomReads, random_reads, read_group
from tools.bench.fio import ABSENT, FIO_DEPTH, PIECE_BYTES, Window, fio_window, usable_engine, write_file
from tools.bench.jobs import scratch
from tools.bench.report import BenchRow

NAME = "reads"
HELP = "random row reads from disk, cold and warm, against fio"

ROW_BYTES, BATCH_ROWS, DEPTHS = 272, 16_384, (32, 64)
SCALES = {True: (1 << 30, 1.0, 3), False: (6 << 30, 2.0, 9)}
"""Bytes of the file, seconds of a window, rounds; by whether it is to be quick."""
GOAL = 0.95
FIO_JOBS = (1, 4)
WARM_BYTES = 1 << 30
"""Warm reads stay in this much of the file, which is read before."""


def run(quick: bool) -> list[BenchRow]:
    """Cold in turn with fio, then warm."""
    size, window_s, rounds = SCALES[quick]
    knobs = {
        "row_bytes": ROW_BYTES,
        "batch_rows": BATCH_ROWS,
        "run_bytes": random_reads.RUN_BYTES,
        "gap_bytes": random_reads.GAP_BYTES,
        "file": f"{size >> 30} GiB, written and read once",
        "window_s": window_s,
        "rounds": rounds,
    }
    with scratch() as directory:
        path = directory / "rows"
        write_file(path, size)
        return [*_cold(path, window_s, rounds, knobs), _warm(path, window_s, rounds, knobs)]


def _cold(path: Path, window_s: float, rounds: int, knobs: dict[str, object]) -> list[BenchRow]:
    """By the system's queue at two depths, and by threads, all in turn with fio."""
    engine = usable_engine(path)
    with ExitStack() as stack:
        ours = [stack.enter_context(_opened(path, depth, direct=True)) for depth in DEPTHS]
        with patch.object(read_group, "HAS_QUEUES", False):
            ours.append(stack.enter_context(_opened(path, DEPTHS[0], direct=True)))
        sides = [partial(side.window, window_s) for side in ours]
        if engine is not None:
            sides += [partial(fio_window, path, engine, jobs, window_s) for jobs in FIO_JOBS]
        taken = _in_turn(sides, rounds)
        fio = [max(windows, key=_reads_per_s) for windows in zip(*taken[len(ours) :], strict=True)]
        return [_against_fio(side.reads, own, fio, engine, knobs) for side, own in zip(ours, taken, strict=False)]


def _against_fio(
    reads: RandomReads, own: list[Window], fio: list[Window], engine: str | None, knobs: dict[str, object]
) -> BenchRow:
    what = f"rows of {ROW_BYTES} bytes, cold, direct, depth {reads.depth}, {reads.how}"
    goal = f">= {GOAL:.0%} of fio's IOPS" if "queue(s)" in reads.how else "-"
    if not fio:
        return BenchRow(NAME, what, _text(own), "fio", ABSENT, goal, None, knobs)
    ratio = median(mine.reads_per_s / peer.reads_per_s for mine, peer in zip(own, fio, strict=True))
    return BenchRow(
        bench=NAME,
        what=what,
        measured=f"{_text(own)}: {ratio:.1%} of fio's IOPS",
        peer=f"fio randread 4 KiB, depth {FIO_DEPTH} by {' or '.join(map(str, FIO_JOBS))} threads, {engine}, direct",
        peer_measured=_text(fio),
        goal=goal,
        met=ratio >= GOAL if goal != "-" else None,
        knobs=knobs,
    )


def _warm(path: Path, window_s: float, rounds: int, knobs: dict[str, object]) -> BenchRow:
    """Out of the page cache."""
    with _opened(path, DEPTHS[0], direct=False) as side:
        (taken,) = _in_turn([partial(side.window, window_s / 2)], rounds)
    what = f"rows of {ROW_BYTES} bytes, warm, {DEPTHS[0]} threads"
    return BenchRow(
        NAME, what, _text(taken), knobs={**knobs, "file": f"{side.size / 2**30:.0f} GiB of it, in the page cache"}
    )


def _in_turn(sides: Sequence[Callable[[], Window]], rounds: int) -> list[list[Window]]:
    """Windows of each side, one after the other, back and forth."""
    taken: list[list[Window]] = [[] for _ in sides]
    for pair in range(rounds):
        for number in sorted(range(len(sides)), reverse=pair % 2 == 1):
            taken[number].append(sides[number]())
    return taken


@dataclass(frozen=True, slots=True)
class Side:
    """Random reads of the first ``size`` bytes of an open file."""

    reads: RandomReads
    fd: int
    size: int

    def window(self, seconds: float) -> Window:
        """Batches one after the other, all in the time that counts; drawing the places does not count."""
        rng = np.random.default_rng()
        fds, out = np.full(BATCH_ROWS, self.fd, np.int32), np.empty((BATCH_ROWS, ROW_BYTES), np.uint8)
        wall_s, cpu_s, before = 0.0, 0.0, self.reads.counters
        while wall_s < seconds:
            offsets = rng.integers(0, self.size - ROW_BYTES, BATCH_ROWS)
            wall, cpu = time.perf_counter(), time.process_time()
            self.reads.read(fds, offsets, ROW_BYTES, out)
            wall_s, cpu_s = wall_s + time.perf_counter() - wall, cpu_s + time.process_time() - cpu
        after = self.reads.counters
        rows, calls = after.rows - before.rows, after.reads - before.reads
        num_bytes = after.bytes_read - before.bytes_read
        return Window(rows / wall_s, calls / wall_s, num_bytes / wall_s, cpu_s / rows * 1e6)


@contextmanager
def _opened(path: Path, depth: int, *, direct: bool) -> Iterator[Side]:
    """A side that has run for an instant. Cached, the bytes are in the page cache."""
    fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
    try:
        size = path.stat().st_size
        if not direct:
            size = min(size, WARM_BYTES)
            for start in range(0, size, PIECE_BYTES):
                os.pread(fd, PIECE_BYTES, start)
            os.posix_fadvise(fd, 0, size, os.POSIX_FADV_RANDOM)
        with RandomReads(depth, direct=direct) as reads:
            side = Side(reads, fd, size)
            side.window(0.2)
            yield side
    finally:
        os.close(fd)


def _reads_per_s(window: Window) -> float:
    return window.reads_per_s


def _text(taken: list[Window]) -> str:
    rows = [one.rows_per_s / 1e3 for one in taken]
    reads, rate = median(one.reads_per_s for one in taken) / 1e3, median(one.bytes_per_s for one in taken) / 1e6
    cpu = median(one.cpu_us_per_row for one in taken)
    spread = f"{median(rows):.1f} k/s ({min(rows):.1f} to {max(rows):.1f})"
    return f"{spread} in {reads:.1f} k reads/s, {rate:.0f} MB/s, {cpu:.1f} us of CPU each"
