"""checkpoint: what an incremental one writes beside a full one, how long training stands still, how long a log takes to reopen.

Bytes are those of every file that a checkpoint makes: segments, footers, manifest, catalog. The reopened log was closed without a
word, as kill -9 does; its files are in the system's page cache.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.files import RealFiles
from pipeline.rowlog import CheckpointWriter
from pipeline.rowlog.log import Beginning, RowLog, RowLogOptions, SavedRows
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec
from tools.bench.jobs import data_root, have_data, run_config, scratch
from tools.bench.report import BenchRow

NAME = "checkpoint"
HELP = "bytes of a checkpoint after 1 % of the rows changed, the pause of training, reopening a log"

CHANGED, GOAL_BYTES, GOAL_REOPEN_S = 0.01, 0.03, 10.0
PIECE = 65_536
SPREAD = np.int64(0x2545F4914F6CDD1D)
"""Odd, so that times it numbers give distinct ids."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One checkpoint: bytes of the files that came with it, and seconds."""

    saved: SavedRows
    nbytes: int
    seconds: float


def run(quick: bool) -> list[BenchRow]:
    with scratch() as directory:
        rows = _increments(directory / "increments", 200_000 if quick else 2_000_000)
        rows.append(_reopen(directory / "reopen", 1_000_000 if quick else 100_000_000))
        rows.append(_pause(directory / "run", 120 if quick else 600))
    return rows


def _table(dim: int) -> TableSpec:
    columns = Column("weight", "float32", dim, "weight"), Column("momentum", "float32", 1, "state")
    return TableSpec("rows", RowLayout(columns), Initializer(), 0)


def _log(directory: Path, beginning: Beginning | None = None) -> RowLog:
    return RowLog([str(directory / "rows")], RealFiles(), RealReads, RowLogOptions(), beginning=beginning)


def _increments(directory: Path, count: int) -> list[BenchRow]:
    spec = _table(64)
    log = _log(directory)
    log.open([spec])
    try:
        numbers = np.arange(count, dtype=np.int64)
        full = _take(log, spec, directory, numbers, 1)
        some = np.random.default_rng(0).choice(numbers, int(count * CHANGED), replace=False)
        part = _take(log, spec, directory, np.sort(some), 2)
    finally:
        log.close()
    share = part.nbytes / full.nbytes
    told = f"{share:.2%} ({part.nbytes / 1e6:.1f} of {full.nbytes / 1e6:.1f} MB; {part.seconds:.2f} of {full.seconds:.2f} s)"
    knobs = {"rows": count, "dim": 64, "changed": CHANGED}
    what = f"bytes of a checkpoint after {CHANGED:.0%} of {count:,} rows changed"
    return [
        BenchRow(NAME, what, told, "a full one", "100 %", f"<= {GOAL_BYTES:.0%}", met=share <= GOAL_BYTES, knobs=knobs)
    ]


def _take(log: RowLog, spec: TableSpec, directory: Path, numbers: Sequence[int] | np.ndarray, step: int) -> Taken:
    """Save rows of ids ``numbers`` as of ``step``, and name them."""
    before, began = _bytes_below(directory), time.perf_counter()
    mark = log.mark()
    for start in range(0, len(numbers), PIECE):
        ids_n = np.asarray(numbers[start : start + PIECE]) * SPREAD
        rows_nb = np.zeros((len(ids_n), spec.layout.row_bytes), dtype=np.uint8)
        rows_nb[:, :8] = ids_n.view(np.uint8).reshape(-1, 8)
        mark.save(spec.name, ids_n, rows_nb, np.full(len(ids_n), step, dtype=np.int64))
    saved, _held = mark.seal()
    writer = CheckpointWriter(RealFiles(), str(directory / "checkpoints"), keep=2)
    writer.begin(step, 1, {})
    writer.add_table(spec, saved.tables[spec.name])
    writer.commit()
    return Taken(saved, _bytes_below(directory) - before, time.perf_counter() - began)


def _bytes_below(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _reopen(directory: Path, count: int) -> BenchRow:
    spec = _table(16)
    log = _log(directory)
    log.open([spec])
    try:
        taken = _take(log, spec, directory, np.arange(count, dtype=np.int64), 1)
    finally:
        log.close()
    again = _log(directory, Beginning(taken.saved, [taken.saved]))
    wall, cpu = time.perf_counter(), time.process_time()
    again.open([spec])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    index_bytes = again.table(spec.name).index.nbytes / count
    again.close()
    goal_s = GOAL_REOPEN_S * count / 1e8
    told = (
        f"{wall:.2f} s ({cpu:.2f} s of processor; {count / wall / 1e6:.1f} M rows/s; index {index_bytes:.1f} B a row)"
    )
    knobs = {"rows": count, "dim": 16, "segments": len(taken.saved.tables[spec.name].segments), "full_s": taken.seconds}
    goal = f"<= {goal_s:g} s (10 s per 100 M rows)"
    return BenchRow(NAME, f"reopening a log of {count:,} rows", told, goal=goal, met=wall <= goal_s, knobs=knobs)


def _pause(directory: Path, steps: int) -> BenchRow:
    what, goal = "globo: longest pause of training for a checkpoint", "< 1 step"
    if not have_data("globo"):
        return BenchRow(NAME, what, f"absent: no {data_root() / 'globo'}; set ROWSTREAM_DATA", goal=goal)
    every = steps // 4
    overrides = [f"run.steps={steps}", f"checkpoint.every='{every} steps'", f"store.ssd.path={directory / 'ssd'}"]
    os.makedirs(directory.parent, exist_ok=True)
    summary, _ = run_config("globo", directory, overrides)
    figures, step_ms = summary["checkpoints"], 1e3 * summary["seconds"] / summary["steps"]
    held_s = summary["store"].get("held_training_s", {}).get("checkpoint", 0.0)
    pause_ms = figures["longest_pause_ms"] + 1e3 * held_s
    told = f"{pause_ms:.2f} ms ({figures['written']} checkpoints, {figures['skipped']} gave way)"
    knobs = {"steps": steps, "every": every, "saved_rows": figures["saved_rows"]}
    return BenchRow(NAME, what, told, "a step", f"{step_ms:.1f} ms", goal, met=pause_ms < step_ms, knobs=knobs)
