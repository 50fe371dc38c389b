"""Lookup + backward + update of resident rows, against FBGEMM on the CPU: the same ids, optimizer, gradient and threads.

Each side runs in its own process and waits while the other works. Pairs of runs of 200 consecutive steps are timed, sides taking
turns to go first; the figure is the median. At the end some rows are compared: both sides must have done the same work.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from typing import Any

import numpy as np

from pipeline.session import environment
from tools.bench.jobs import ROOT
from tools.bench.lookup_work import BATCH, DIM, ROWS, TABLES
from tools.bench.report import BenchRow

NAME = "lookup"
HELP = "lookup, backward and update of resident rows on the host, against FBGEMM"
STEPS, THREADS = 200, 2
GOAL_NOW, GOAL_LATER = 1.0, 3.0
TOLERANCE = 1e-4
PEER = "fbgemm-gpu-cpu 1.8.0"


class Side:
    """One side's process."""

    def __init__(self, module: str, distribution: str, optimizer: str) -> None:
        self._module = module
        command = [sys.executable, "-m", module, distribution, optimizer, str(STEPS), str(THREADS)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True, env=_environment()
        )
        self.knobs: dict[str, Any] = self._answer()["ready"]

    def seconds(self, steps: int) -> float:
        return float(self._ask({"run": steps})["seconds"])

    def rows(self) -> np.ndarray[Any, Any]:
        return np.array(self._ask({"rows": True})["rows"], np.float32)

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"{self._module} ended with {self._process.wait()}")


def _environment() -> dict[str, str]:
    """As the benchmark was started, without what this project pins for exactness: it would slow the peer's threads down."""
    return {name: value for name, value in os.environ.items() if name not in environment.PINNED}


def run(quick: bool) -> list[BenchRow]:
    have_peer = importlib.util.find_spec("fbgemm_gpu") is not None
    pairs = 3 if quick else 7
    return [
        _compare(distribution, optimizer, pairs, have_peer)
        for distribution in ("zipf", "uniform")
        for optimizer in ("sgd", "rowwise_adagrad")
    ]


def _compare(distribution: str, optimizer: str, pairs: int, have_peer: bool) -> BenchRow:
    sides = [Side("tools.bench.lookup_rowstream", distribution, optimizer)]
    if have_peer:
        sides.append(Side("tools.bench.lookup_fbgemm", distribution, optimizer))
    try:
        times = [[side.seconds(STEPS)] for side in sides]  # warm: not counted
        for pair in range(pairs):
            for number in sorted(range(len(sides)), reverse=pair % 2 == 1):
                times[number].append(sides[number].seconds(STEPS))
        if have_peer:
            _check_rows(sides[0].rows(), sides[1].rows())
    finally:
        for side in sides:
            side.close()
    return _row(distribution, optimizer, [[run / STEPS * 1e3 for run in side[1:]] for side in times], sides)


def _check_rows(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> None:
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if error > TOLERANCE:
        raise RuntimeError(f"the two sides did not do the same work: rows differ by {error:.1e} of the largest weight")


def _row(distribution: str, optimizer: str, ms: list[list[float]], sides: list[Side]) -> BenchRow:
    medians = [statistics.median(side) for side in ms]
    knobs = {
        "tables": TABLES,
        "rows": ROWS,
        "dim": DIM,
        "batch": BATCH,
        "steps": STEPS,
        "runs": len(ms[0]),
        **sides[0].knobs,
    }
    what = f"{optimizer}, ids {distribution}"
    text = f"{medians[0]:.2f} ms a step ({min(ms[0]):.2f} to {max(ms[0]):.2f})"
    if len(ms) == 1:
        return BenchRow(NAME, what, text, PEER, "absent: pip install --no-deps fbgemm-gpu-cpu==1.8.0", knobs=knobs)
    ratio = medians[1] / medians[0]
    return BenchRow(
        bench=NAME,
        what=what,
        measured=f"{text}: {ratio:.2f}x the peer's speed",
        peer=PEER,
        peer_measured=f"{medians[1]:.2f} ms a step ({min(ms[1]):.2f} to {max(ms[1]):.2f})",
        goal=f">= {GOAL_NOW:.0f}x now, {GOAL_LATER:.0f}x later",
        met=ratio >= GOAL_NOW,
        knobs=knobs,
    )
