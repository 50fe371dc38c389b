"""optimizers: each optimizer's fused step, lookup + backward + update of resident rows, against plain torch and FBGEMM.

The work is that of the benchmark ``lookup``: the same ids, gradient and threads on each side. Each side runs in its own process and waits
while the others work; runs of consecutive steps are timed by turns, in another order each time; the figure is the median. The peer
is the faster of the two. At the end some rows are compared: all sides must have done the same work.
"""

from __future__ import annotations

import importlib.util
import statistics
from contextlib import ExitStack
from typing import Any

import numpy as np

from pipeline.optim import OPTIMIZERS
from tools.bench.lookup import ABSENT, GOAL, PEER
from tools.bench.lookup_rowstream import FILL
from tools.bench.lookup_work import BATCH, DIM, ROWS, TABLES
from tools.bench.report import BenchRow, step_times
from tools.bench.side import Side

NAME = "optimizers"
HELP = "each optimizer's lookup, backward and update of resident rows, against plain torch and FBGEMM"
DISTRIBUTIONS = ("zipf 1.2", "uniform")
OF_FBGEMM = ("sgd", "adagrad", "rowwise_adagrad")
"""What FBGEMM has on the CPU."""
OF_TORCH = {"sgd": "torch.optim.SGD", "adagrad": "torch.optim.Adagrad", "adam": "torch.optim.SparseAdam"}
"""Those of torch.optim; the others are plain torch code."""
STEPS, THREADS, START = 20, 2, 0.1
TOLERANCE = 0.02
ROUNDS = {True: 3, False: 9}
OURS, TORCH, FBGEMM = "ours", "torch", PEER


def run(quick: bool) -> list[BenchRow]:
    distributions = DISTRIBUTIONS[:1] if quick else DISTRIBUTIONS
    return [
        row
        for distribution in distributions
        for optimizer in OPTIMIZERS
        for row in _compare(distribution, optimizer, ROUNDS[quick])
    ]


def _compare(distribution: str, optimizer: str, rounds: int) -> list[BenchRow]:
    work = (distribution, optimizer, str(STEPS), str(THREADS))
    with ExitStack() as stack:
        sides = {
            OURS: stack.enter_context(Side("tools.bench.lookup_rowstream", *work, "1", str(START))),
            TORCH: stack.enter_context(Side("tools.bench.optimizers_torch", *work, str(START), str(ROWS // FILL + 1))),
        }
        if optimizer in OF_FBGEMM and importlib.util.find_spec("fbgemm_gpu") is not None:
            sides[FBGEMM] = stack.enter_context(Side("tools.bench.lookup_fbgemm", *work, str(START)))
        times: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(rounds + 1):  # the first one warms up and is not counted
            for name in list(sides) if number % 2 else reversed(sides):
                took = float(sides[name].ask({"run": STEPS})["seconds"])
                times[name] += [took / STEPS * 1e3] if number else []
        rows = {name: side.ask({"rows": True})["rows"] for name, side in sides.items()}
        for name in list(sides)[1:]:
            check_moves(rows[OURS], rows[name])
        phases = sides[OURS].ask({"phases": STEPS})["phases"]
        knobs = _knobs(rounds, sides)
    told = ", ".join(f"{name} {ms:.2f}" for name, ms in phases.items())
    return [speed_row(distribution, optimizer, times, knobs), BenchRow(NAME, "of it", f"{told} ms", knobs=knobs)]


def check_moves(ours_nd: Any, theirs_nd: Any) -> None:
    """Raise RuntimeError unless both sides have moved the same rows from where they began to the same places."""
    ours, theirs = np.array(ours_nd, np.float64), np.array(theirs_nd, np.float64)
    error = float(np.abs(ours - theirs).max() / np.abs(theirs - START).max())
    if not error <= TOLERANCE:
        raise RuntimeError(f"the sides did not do the same work: rows differ by {error:.1e} of the largest move")


def _knobs(rounds: int, sides: dict[str, Side]) -> dict[str, object]:
    shape = {"tables": TABLES, "rows": ROWS, "dim": DIM, "batch": BATCH}
    return {**shape, "steps": STEPS, "rounds": rounds, **sides[OURS].knobs, **sides[TORCH].knobs}


def speed_row(distribution: str, optimizer: str, times: dict[str, list[float]], knobs: dict[str, object]) -> BenchRow:
    """``times``: ms of a step of each run, by side; ours among them."""
    named = {TORCH: OF_TORCH.get(optimizer, "plain torch"), FBGEMM: FBGEMM}
    medians = {name: statistics.median(ms) for name, ms in times.items()}
    faster = min((name for name in times if name != OURS), key=medians.__getitem__)
    ratio = medians[faster] / medians[OURS]
    told = "; ".join(f"{named[name]}: {step_times(ms)}" for name, ms in times.items() if name != OURS)
    absent = f"; {PEER} {ABSENT}" if optimizer in OF_FBGEMM and FBGEMM not in times else ""
    return BenchRow(
        NAME,
        f"{optimizer}, ids {distribution}",
        f"{step_times(times[OURS])}: {ratio:.2f}x the speed of the faster peer",
        named[faster],
        told + absent,
        f">= {GOAL:.0f}x",
        ratio >= GOAL,
        knobs,
    )
