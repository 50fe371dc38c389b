"""tiers_dram: a tenth of the rows in L1, the rest in the DRAM tier, against FBGEMM with everything in RAM: the same ids and gradient.

Our side is the whole pipeline with one gradient in place of a model (``tier_job``): the rows of later batches are brought in while a
batch computes. Each side runs in its own process and waits while the other works; sides take turns to go first. Both end with the
same steps, and some rows are compared then.
"""

from __future__ import annotations

import importlib.util
import statistics
from contextlib import ExitStack
from typing import Any

from tools.bench.jobs import scratch
from tools.bench.lookup import PEER, THREADS, check_rows, speed_row
from tools.bench.lookup_work import BATCH, DIM, ROWS, TABLES, checked_ids, make_work
from tools.bench.report import BenchRow, step_times
from tools.bench.side import Side
from tools.bench.tier_job import NAMES, write_job

NAME = "tiers_dram"
HELP = "10 % of the rows in L1, the rest in the DRAM tier, against FBGEMM with everything in RAM"

DISTRIBUTIONS = ("zipf 1.05", "reuse 2022")
OPTIMIZER = "rowwise_adagrad"
STEPS, LOOKAHEAD, L1_SHARE = 200, 4, 0.1
SCALES = {True: (50, 3), False: (200, 7)}
"""Steps of a run, pairs of runs; by whether it is to be quick."""
GOAL = 1.0


def run(quick: bool) -> list[BenchRow]:
    have_peer = importlib.util.find_spec("fbgemm_gpu") is not None
    return [
        row
        for distribution in DISTRIBUTIONS
        for row in (_compare(distribution, *SCALES[quick], have_peer), _parts(distribution))
    ]


def _parts(distribution: str) -> BenchRow:
    """What the same steps cost one after the other, without stages."""
    with Side("tools.bench.lookup_rowstream", distribution, OPTIMIZER, str(STEPS), "1", str(L1_SHARE)) as side:
        side.ask({"run": STEPS // 2})  # warm: L1 is full
        phases = side.ask({"phases": STEPS})["phases"]
        told = ", ".join(f"{name} {ms:.2f}" for name, ms in phases.items())
        return BenchRow(
            NAME, "of it, one after the other on one thread", f"{told} ms", knobs={"ids": distribution, **side.knobs}
        )


def _compare(distribution: str, steps: int, pairs: int, have_peer: bool) -> BenchRow:
    with scratch() as directory, ExitStack() as stack:
        store = {"l1_rows": int(L1_SHARE * TABLES * ROWS)}
        job = write_job(directory, distribution, STEPS, store, LOOKAHEAD)
        ours = stack.enter_context(Side("tools.bench.tier_job", str(job), str(directory / "run")))
        sides = [ours]
        if have_peer:
            arguments = (distribution, OPTIMIZER, str(STEPS), str(THREADS))
            sides.append(stack.enter_context(Side("tools.bench.lookup_fbgemm", *arguments)))
        taken: list[list[dict[str, Any]]] = [[side.ask({"run": steps})] for side in sides]  # warm: not counted
        for pair in range(pairs):
            for number in sorted(range(len(sides)), reverse=pair % 2 == 1):
                taken[number].append(sides[number].ask({"run": steps}))
        if have_peer:
            sides[1].ask(
                {"run": (1 + pairs) * ours.knobs["settle_steps"]}
            )  # which our side took beside those that count
            ids = checked_ids(make_work(distribution, STEPS)).tolist()
            check_rows(
                ours.ask({"rows": {"table": NAMES[0], "ids": ids}})["rows"], sides[1].ask({"rows": True})["rows"]
            )
        knobs = {**work_knobs(distribution), **store, **ours.knobs, "steps": steps, "runs": pairs}
    return _row(distribution, [side[1:] for side in taken], steps, knobs)


def work_knobs(distribution: str) -> dict[str, object]:
    return {"ids": distribution, "tables": TABLES, "rows": ROWS, "dim": DIM, "batch": BATCH, "optimizer": OPTIMIZER}


def _row(distribution: str, taken: list[list[dict[str, Any]]], steps: int, knobs: dict[str, object]) -> BenchRow:
    ms = [[run["seconds"] / steps * 1e3 for run in side] for side in taken]
    misses = statistics.median(run["misses"] / steps for run in taken[0])
    cpu_ms = statistics.median(run["cpu_s"] / steps * 1e3 for run in taken[0])
    what = f"10 % of the rows in L1, the rest in DRAM, ids {distribution}"
    text = f"{step_times(ms[0])}, {misses:,.0f} rows brought in, {cpu_ms:.1f} ms of CPU"
    return speed_row(NAME, what, text, ms, f"{PEER}, all rows in RAM", knobs, GOAL)
