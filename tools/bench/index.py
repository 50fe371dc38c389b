"""index: memory and speed of the index from id to place, as the SSD tier keeps it for each table.

The fill puts ids in the calls that a step makes. Memory is what the index says it holds, and beside it what the system says this
process took. A put waits for nothing, so it counts by its processor time, page faults included: wall time, which is printed too, is
that of whoever else has the machine. Reserved puts are those of a reopening: many ids a call, into an index that was told their
number. Time per cold read, through the whole SSD tier, is taken in ``index_reads``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.rowlog.places import PlaceIndex
from pipeline.session import environment
from tools.bench import index_reads
from tools.bench.report import BenchRow

NAME = "index"
HELP = "memory of the SSD tier's index over a fill, its slowest put, its rates; time per cold read"

GOAL_BYTES, GOAL_PUT_MS, GOAL_RESERVED_PER_S = 24.0, 10.0, 10_000_000
FROM_IDS = 1_000_000
PUT, REOPEN = 8192, 1 << 22
FINDS = 1 << 21
SPREAD = np.int64(0x2545F4914F6CDD1D)
"""Odd, so that times it numbers give distinct ids."""
Int64s = npt.NDArray[np.int64]


@dataclass(slots=True)
class Fill:
    """What was seen of puts from FROM_IDS ids on."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    held_bytes: float = 0.0
    """An id, at the peak."""
    resident_bytes: float = 0.0
    """Of the process, an id, at its peak."""


def run(quick: bool) -> list[BenchRow]:
    """Fill, find, and enter again what is already known to come."""
    environment.keep_freed_memory()  # as every run does
    count = 5_000_000 if quick else 100_000_000
    _compile()
    environment.leave_start_to_itself()
    index = PlaceIndex()
    fill = _fill(index, count)
    rows = [*_fill_rows(fill), *_find_rows(index, count, "grown by puts")]
    del index
    index = PlaceIndex(count)
    rows.append(_reserved_row(index, count))
    rows += _find_rows(index, count, "reserved")
    del index
    cold = index_reads.rows(quick)
    knobs = {"ids": count, "from": FROM_IDS, "ids_per_put": PUT, "ids_per_reserved_put": REOPEN, "threads": 1}
    described = [(row, knobs) for row in rows] + [(row, index_reads.KNOBS) for row in cold]
    return [BenchRow(NAME, row[0], row[1], goal=row[2], met=row[3], knobs=knobs) for row, knobs in described]


Figures = tuple[str, str, str, bool | None]


def _ids(start: int, stop: int) -> Int64s:
    return np.arange(start, stop, dtype=np.int64) * SPREAD


def _compile() -> None:
    index = PlaceIndex()
    for start in range(0, 200_000, PUT):
        index.put(_ids(start, start + PUT), np.arange(PUT))
    index.put(_ids(0, REOPEN), np.arange(REOPEN))
    index.find(_ids(0, PUT))


def _resident_bytes() -> int:
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _fill(index: PlaceIndex, count: int) -> Fill:
    fill, empty_bytes = Fill(), _resident_bytes() - index.nbytes
    for start in range(0, count, PUT):
        ids_n = _ids(start, start + PUT)
        wall, cpu = time.perf_counter(), time.thread_time()
        index.put(ids_n, np.arange(start, start + PUT))
        cpu, wall, held = time.thread_time() - cpu, time.perf_counter() - wall, start + PUT
        if held > FROM_IDS:
            fill.wall_s.append(wall)
            fill.cpu_s.append(cpu)
            fill.held_bytes = max(fill.held_bytes, index.nbytes / held)
            fill.resident_bytes = max(fill.resident_bytes, (_resident_bytes() - empty_bytes) / held)
    return fill


def _fill_rows(fill: Fill) -> list[Figures]:
    wall_ms, cpu_ms = 1e3 * np.array(fill.wall_s), 1e3 * np.array(fill.cpu_s)
    over = int((cpu_ms > GOAL_PUT_MS).sum())
    resident = f" ({fill.resident_bytes:.1f} B resident)" if fill.resident_bytes else ""
    return [
        (
            "memory of an id at the peak of the fill, growth included",
            f"{fill.held_bytes:.1f} B{resident}",
            f"<= {GOAL_BYTES:.0f} B",
            max(fill.held_bytes, fill.resident_bytes) <= GOAL_BYTES,
        ),
        (
            f"slowest put of {PUT} ids",
            f"{cpu_ms.max():.1f} ms of processor (median {np.median(cpu_ms):.1f} ms, 99.9 % {np.quantile(cpu_ms, 0.999):.1f} ms,"
            f" {over} of {len(cpu_ms)} over {GOAL_PUT_MS:.0f} ms; wall: median {np.median(wall_ms):.1f}, most {wall_ms.max():.1f} ms)",
            f"<= {GOAL_PUT_MS:.0f} ms",
            over == 0,
        ),
        ("put of new ids, growing", _rate(PUT * len(wall_ms), cpu_ms.sum() / 1e3, wall_ms.sum() / 1e3)[1], "-", None),
    ]


def _rate(ids: int, cpu_s: float, wall_s: float) -> tuple[float, str]:
    per_cpu = ids / cpu_s
    return per_cpu, f"{per_cpu / 1e6:.1f} M ids/s of one core ({ids / wall_s / 1e6:.1f} M/s wall)"


def _timed(calls: list[Callable[[], object]]) -> tuple[float, float]:
    """Processor and wall seconds of all calls."""
    wall, cpu = time.perf_counter(), time.thread_time()
    for call in calls:
        call()
    return time.thread_time() - cpu, time.perf_counter() - wall


def _find_rows(index: PlaceIndex, count: int, how: str) -> list[Figures]:
    numbers = np.random.default_rng(0).integers(0, count, FINDS)
    rows: list[Figures] = []
    for what, ids_n in (("present", numbers * SPREAD), ("absent", (numbers + 2 * count) * SPREAD)):
        seconds = _timed([lambda part=part: index.find(part) for part in np.split(ids_n, FINDS // PUT)])  # type: ignore[misc]
        rows.append((f"find of {what} ids, index {how}", _rate(FINDS, *seconds)[1], "-", None))
    return rows


def _reserved_row(index: PlaceIndex, count: int) -> Figures:
    cpu_s = wall_s = 0.0
    for start in range(0, count, REOPEN):
        ids_n = _ids(start, min(count, start + REOPEN))
        places_n = np.arange(start, start + ids_n.shape[0])
        cpu, wall = _timed([lambda ids_n=ids_n, places_n=places_n: index.put(ids_n, places_n)])  # type: ignore[misc]
        cpu_s, wall_s = cpu_s + cpu, wall_s + wall
    per_cpu, text = _rate(count, cpu_s, wall_s)
    text += f", {index.nbytes / count:.1f} B an id"
    return (
        "put of new ids, reserved",
        text,
        f">= {GOAL_RESERVED_PER_S / 1e6:.0f} M ids/s",
        per_cpu >= GOAL_RESERVED_PER_S,
    )
