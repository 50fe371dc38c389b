"""Bytes and ages of a best-effort stream at a few budgets, on real logs whose samples come at one rate.

A hook on one table keeps the pace: a step's update waits for its time. AUC is taken as ``wire_bytes`` does, at the run's end, when all
that waited was sent; and of the replica as it served while training went on, at the last cut before that.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tools.bench.jobs import data_root, have_data, run_config, scratch
from tools.bench.report import BenchRow
from tools.bench.wire_bytes import GOAL_AUC, STREAMED, UNSTREAMED, compare

if TYPE_CHECKING:
    import torch

    from cuda.plan import FeatureSet
    from stages.items import RawBatch

NAME = "best_effort"
HELP = "globo (user, article) and brunch: bytes on the wire at a few budgets, and how old the oldest unsent row got"

SAMPLES_PER_S, BATCH = 50_000, 2048
GOAL = 13.0
MAX_AGE = "30s"
SETTING = (
    "stages.stream.every=200ms",
    "stages.stream.freshness=best_effort",
    f"stages.stream.max_age={MAX_AGE}",
    "stages.stream.zstd_level=3",
)
CASES = {"globo": (("int8", 100_000), ("int4", 110_000)), "brunch": (("int8", 700_000), ("int4", 400_000))}
"""By config: (codec, bytes per second)."""


class Pace:
    """A hook of one table: the update of the n-th step is not made before n batches are due."""

    def __init__(self, samples_per_s: float) -> None:
        self._step_s = BATCH / samples_per_s
        self._next: float | None = None

    def __call__(self, _table: str, _ids: Any, _gradients: Any) -> None:
        now = time.monotonic()
        due = now if self._next is None else self._next
        time.sleep(max(0.0, due - now))
        self._next = max(due, now - self._step_s) + self._step_s


def run(quick: bool) -> list[BenchRow]:
    steps, count = (250, 50) if quick else (1500, 200)
    rows = []
    for config, cases in CASES.items():
        if not have_data(config):
            rows.append(BenchRow(NAME, config, f"absent: no {data_root() / config}; set ROWSTREAM_DATA"))
            continue
        with scratch() as directory:
            from tools.bench.paced_run import future

            behind = future(config, directory / "future", steps, count, [])
        rows += [_measure(config, codec, budget, steps, behind) for codec, budget in cases]
    return rows


def _measure(
    config: str, codec: str, budget: int, steps: int, behind: tuple[list[RawBatch], FeatureSet, torch.nn.Module]
) -> BenchRow:
    off = "{" + ", ".join(f"{table}: {{enabled: false}}" for table in UNSTREAMED[config]) + "}"
    pace = (
        f'{{use: "{__name__}:Pace", at: before_update, tables: [article], options: {{samples_per_s: {SAMPLES_PER_S}}}}}'
    )
    given = (
        *SETTING,
        f"stages.stream.codec={codec}",
        f"stages.stream.budget={budget}",
        f"stages.stream.tables={off}",
        f"hooks.pace={pace}",
        f"run.steps={steps}",
    )
    with scratch() as directory:
        summary, replica = run_config(config, directory / "run", given, replica=True)
        mine, theirs = compare(directory / "run", STREAMED[config], *behind)
        _, meanwhile = compare(directory / "run", STREAMED[config], *behind, before=steps)
    fewer = summary["bytes_if_raw"] / summary["bytes_streamed"]
    effort, fresh = summary["best_effort"], replica["freshness_ms"]
    measured = (
        f"{fewer:.1f}x fewer bytes, {summary['over_budget_bytes'] / summary['bytes_streamed']:.0%} of them beyond the budget; "
        f"oldest unsent row {effort['longest_wait_s']:.1f} s; whole steps p50 {fresh['p50'] / 1e3:.1f} s, max {fresh['max'] / 1e3:.1f} s; "
        f"AUC at the end {theirs:.5f}, trainer {mine:.5f}, replica before the end {meanwhile:.5f}"
    )
    rate = summary["steps"] * BATCH / summary["seconds"]
    knobs = {"steps": steps, "setting": " ".join(SETTING), "samples/s": f"{rate:,.0f}"}
    what, goal = (
        f"{config}: {codec}, budget {budget / 1000:,.0f} kB/s",
        f">= {GOAL:g}x, AUC at the end within {GOAL_AUC}",
    )
    met = fewer >= GOAL and abs(mine - theirs) <= GOAL_AUC
    return BenchRow(NAME, what, measured, "rows of each step as fp32", "1x", goal, met, knobs)
