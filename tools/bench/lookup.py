"""Lookup + backward + update of resident rows, against FBGEMM on the CPU: the same ids, optimizer, gradient and threads.

Each side runs in its own process and waits while the other works. Pairs of runs of 200 consecutive steps are timed, sides taking
turns to go first; the figure is the median. At the end some rows are compared: both sides must have done the same work.
"""

from __future__ import annotations

import importlib.util
import statistics
from contextlib import ExitStack
from typing import Any

import numpy as np

from tools.bench.lookup_work import BATCH, DIM, ROWS, TABLES
from tools.bench.report import BenchRow, step_times
from tools.bench.side import Side

NAME = "lookup"
HELP = "lookup, backward and update of resident rows on the host, against FBGEMM"
DISTRIBUTIONS = ("zipf 1.2", "uniform", "reuse 2022")
STEPS, THREADS, PAIRS = 200, 2, {True: 3, False: 7}
GOAL = 3.0
TOLERANCE = 1e-4
PEER = "fbgemm-gpu-cpu 1.8.0"
ABSENT = "absent: pip install --no-deps fbgemm-gpu-cpu==1.8.0"


def run(quick: bool) -> list[BenchRow]:
    have_peer = importlib.util.find_spec("fbgemm_gpu") is not None
    return [
        row
        for distribution in DISTRIBUTIONS
        for optimizer in ("sgd", "rowwise_adagrad")
        for row in _compare(distribution, optimizer, PAIRS[quick], have_peer)
    ]


def _compare(distribution: str, optimizer: str, pairs: int, have_peer: bool) -> list[BenchRow]:
    modules = ["tools.bench.lookup_rowstream", "tools.bench.lookup_fbgemm"][: 1 + have_peer]
    with ExitStack() as stack:
        arguments = (distribution, optimizer, str(STEPS), str(THREADS))
        sides = [stack.enter_context(Side(module, *arguments)) for module in modules]
        least = stack.enter_context(Side("tools.bench.lookup_floor", distribution, str(STEPS), str(THREADS)))
        times = [[seconds(side)] for side in (*sides, least)]  # warm: not counted
        for pair in range(pairs):
            for number in sorted(range(len(sides)), reverse=pair % 2 == 1):
                times[number].append(seconds(sides[number]))
            times[-1].append(seconds(least))
        if have_peer:
            check_rows(*(side.ask({"rows": True})["rows"] for side in sides))
        phases = sides[0].ask({"phases": STEPS})["phases"]
    *ms, least_ms = [[run / STEPS * 1e3 for run in side[1:]] for side in times]
    row = _row(distribution, optimizer, ms, sides)
    told = ", ".join(f"{name} {one:.2f}" for name, one in phases.items())
    floor = f"{step_times(least_ms)}, nothing found or counted"
    floor += f"; the goal is {statistics.median(ms[1]) / GOAL:.2f} ms" if have_peer else ""
    return [
        row,
        BenchRow(NAME, "of it", f"{told} ms", knobs=row.knobs),
        BenchRow(NAME, "its rows copied out and changed, alone", floor, knobs=row.knobs),
    ]


def seconds(side: Side) -> float:
    return float(side.ask({"run": STEPS})["seconds"])


def check_rows(ours_nd: Any, theirs_nd: Any) -> None:
    """Raise RuntimeError unless both sides have come to the same rows."""
    ours, theirs = np.array(ours_nd, np.float32), np.array(theirs_nd, np.float32)
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if error > TOLERANCE:
        raise RuntimeError(f"the two sides did not do the same work: rows differ by {error:.1e} of the largest weight")


def _row(distribution: str, optimizer: str, ms: list[list[float]], sides: list[Side]) -> BenchRow:
    knobs = {
        "tables": TABLES,
        "rows": ROWS,
        "dim": DIM,
        "batch": BATCH,
        "steps": STEPS,
        "runs": len(ms[0]),
        **sides[0].knobs,
    }
    return speed_row(NAME, f"{optimizer}, ids {distribution}", step_times(ms[0]), ms, PEER, knobs)


def speed_row(
    bench: str, what: str, text: str, ms: list[list[float]], peer: str, knobs: dict[str, object], goal: float = GOAL
) -> BenchRow:
    """Our runs, told as ``text``, against the peer's: ``ms`` of a step, ours first; with ours alone the peer was absent."""
    if len(ms) == 1:
        return BenchRow(bench, what, text, PEER, ABSENT, knobs=knobs)
    ratio = statistics.median(ms[1]) / statistics.median(ms[0])
    measured = f"{text}: {ratio:.2f}x the peer's speed"
    return BenchRow(bench, what, measured, peer, step_times(ms[1]), f">= {goal:.0f}x", ratio >= goal, knobs)
