"""rocksdb: the row log against RocksDB, both behind the Tier interface: the same rows put, and got in the same batches of random ids.

Warm, all rows are in memory: RocksDB's in its block cache, ours in a cache tier of as many bytes over the disk; and, in a row of its own,
ours in the system's page cache alone. Cold, both read past the page cache and keep no rows. Gets are made by several threads at once;
each side is tried with several numbers of them and has the one that serves it best. Every row was got once before.
Puts end when all is in files: the flush counts.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.files import RealFiles
from pipeline.optim import RowwiseAdagradOptions, layout_of
from pipeline.rowlog.log import RowLog, RowLogOptions
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.session import environment
from pipeline.store import CacheTier, SsdTier, Tier
from tools.bench.jobs import scratch
from tools.bench.report import BenchRow
from tools.bench.rocks_tier import RocksTier

NAME = "rocksdb"
HELP = "the row log against RocksDB behind the Tier interface: gets warm and cold, puts"

TABLE, DIM, BATCH = "items", 64, 8192
CACHE_BYTES = 1 << 30
THREADS = (1, 2, 8, 32)
SCALES = {True: (200_000, 0.4, 2), False: (2_000_000, 1.5, 5)}
"""Rows, seconds of a window, rounds; by whether it is to be quick."""
GOAL = 3.0
ABSENT = "absent: pip install rocksdict==0.3.29"
SPEC = TableSpec(TABLE, layout_of(RowwiseAdagradOptions(), DIM), Initializer(), 0)
Make = Callable[[Path], Tier]


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison: how each side's tier is made, and whether gets or puts are timed."""

    what: str
    ours: Make
    peer: Make
    goal: float | None = None


def _ssd(path: Path, *, direct: bool) -> SsdTier:
    return SsdTier(RowLog([str(path)], RealFiles(), lambda: RealReads(direct=direct), RowLogOptions()))


CASES = (
    Case(
        "gets, warm: cache tier over the row log",
        lambda path: CacheTier(_ssd(path, direct=False), CACHE_BYTES),
        lambda path: RocksTier(path, cache_bytes=CACHE_BYTES),
        GOAL,
    ),
    Case(
        "gets, warm: row log in the page cache",
        lambda path: _ssd(path, direct=False),
        lambda path: RocksTier(path, cache_bytes=CACHE_BYTES),
    ),
    Case(
        "gets, cold: row log, direct", lambda path: _ssd(path, direct=True), lambda path: RocksTier(path, direct=True)
    ),
)


def run(quick: bool) -> list[BenchRow]:
    environment.keep_freed_memory()  # as every run does
    num_rows, window_s, rounds = SCALES[quick]
    with_peer = importlib.util.find_spec("rocksdict") is not None
    rows = []
    for case in CASES:
        rows += _measure(case, num_rows, window_s, rounds, with_peer)
    return rows


def _measure(case: Case, num_rows: int, window_s: float, rounds: int, with_peer: bool) -> list[BenchRow]:
    knobs: dict[str, object] = {
        "rows": num_rows,
        "dim": DIM,
        "row_bytes": SPEC.layout.row_bytes,
        "ids_per_call": BATCH,
        "window_s": window_s,
    }
    knobs |= {"rounds": rounds, "cache_bytes": CACHE_BYTES, "threads_tried": "/".join(map(str, THREADS))}
    makes = [case.ours, case.peer][: 1 + with_peer]
    with scratch() as directory, _filled(directory, makes, num_rows) as sides:
        threads = [_best_threads(tier, num_rows, window_s) for tier, _ in sides]
        gets = [
            [_gets(tier, num_rows, window_s, count) for (tier, _), count in zip(sides, threads, strict=True)]
            for _ in range(rounds)
        ]
        puts = [put for _, put in sides]
    of_gets = [list(column) for column in zip(*gets, strict=True)]
    texts = [f"{_rate(rates)} by {count} thread(s)" for rates, count in zip(of_gets, threads, strict=True)]
    put_row = _row(
        case.what.replace("gets", "puts with flush"),
        [[put] for put in puts],
        [_rate([put]) for put in puts],
        None,
        knobs,
    )
    return [_row(case.what, of_gets, texts, case.goal, knobs), put_row]


@contextmanager
def _filled(directory: Path, makes: list[Make], num_rows: int) -> Iterator[list[tuple[Tier, float]]]:
    """Each side's tier with all rows in it, and the rows it took a second."""
    sides: list[tuple[Tier, float]] = []
    try:
        for number, make in enumerate(makes):
            path = directory / str(number)
            path.mkdir()
            tier = make(path)
            tier.open([SPEC])
            sides.append((tier, 0.0))
            sides[-1] = (tier, _fill(tier, num_rows))
            for start in range(0, num_rows, BATCH):  # what can be kept in memory is
                tier.get(TABLE, np.arange(start, min(start + BATCH, num_rows)))
        yield sides
    finally:
        for tier, _ in sides:
            tier.close()


def _fill(tier: Tier, num_rows: int) -> float:
    """Rows a second: random ids, random bytes; the making of them does not count."""
    rng = np.random.default_rng(0)
    ids_n = rng.permutation(num_rows)
    taken_s = 0.0
    for start in range(0, num_rows, BATCH):
        part_n = ids_n[start : start + BATCH]
        rows_nb = rng.integers(0, 256, (len(part_n), SPEC.layout.row_bytes), np.uint8)
        versions_n = np.full(len(part_n), start + 1)
        began = time.perf_counter()
        tier.put(TABLE, part_n, rows_nb, versions_n)
        taken_s += time.perf_counter() - began
    began = time.perf_counter()
    tier.flush()
    return num_rows / (taken_s + time.perf_counter() - began)


def _best_threads(tier: Tier, num_rows: int, window_s: float) -> int:
    return max(THREADS, key=lambda count: _gets(tier, num_rows, window_s, count))


def _gets(tier: Tier, num_rows: int, window_s: float, threads: int) -> float:
    """Rows a second."""
    end = time.perf_counter() + window_s

    def work(seed: int) -> int:
        rng, got = np.random.default_rng(seed), 0
        while time.perf_counter() < end:
            found_n = tier.get(TABLE, rng.integers(0, num_rows, BATCH)).found_n
            assert found_n.all()
            got += BATCH
        return got

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        got = sum(pool.map(work, range(threads)))
    return got / (time.perf_counter() - began)


def _rate(rates: list[float]) -> str:
    text = f"{median(rates) / 1e6:.3f} M rows/s"
    return text if len(rates) == 1 else f"{text} ({min(rates) / 1e6:.3f} to {max(rates) / 1e6:.3f})"


def _row(
    what: str, rates: list[list[float]], texts: list[str], goal: float | None, knobs: dict[str, object]
) -> BenchRow:
    peer = "RocksDB, rocksdict 0.3.29"
    if len(rates) == 1:
        return BenchRow(NAME, what, texts[0], peer, ABSENT, knobs=knobs)
    ratio = median(ours / theirs for ours, theirs in zip(*rates, strict=True))
    text = f"{texts[0]}: {ratio:.2f}x the peer's"
    if goal is None:
        return BenchRow(NAME, what, text, peer, texts[1], knobs=knobs)
    return BenchRow(NAME, what, text, peer, texts[1], f">= {goal:.0f}x", ratio >= goal, knobs)
