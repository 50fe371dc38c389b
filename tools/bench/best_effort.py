"""Bytes and ages of a best-effort stream at a few budgets, on real logs whose samples come at one rate.

A hook on one table keeps the pace: a step's update waits for its time.
"""

from __future__ import annotations

import time
from typing import Any

from tools.bench.jobs import data_root, have_data, run_config, scratch
from tools.bench.report import BenchRow

NAME = "best_effort"
HELP = "globo (user, article) and brunch: bytes on the wire at a few budgets, and how old the oldest unsent row got"

SAMPLES_PER_S, BATCH = 50_000, 2048
GOAL = 13.0
MAX_AGE = "30s"
SETTING = ("stages.stream.every=200ms", "stages.stream.freshness=best_effort", f"stages.stream.max_age={MAX_AGE}")
NOT_STREAMED = {"globo": ("environment", "device", "os", "country", "region", "referrer"), "brunch": ()}
CASES = (
    ("globo", "int8", 170_000),
    ("globo", "int4", 110_000),
    ("brunch", "int8", 700_000),
    ("brunch", "int4", 400_000),
)
"""(config, codec, bytes per second)"""


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
    rows = []
    for config, codec, budget in CASES:
        if have_data(config):
            rows.append(_measure(config, codec, budget, 250 if quick else 1500))
        else:
            rows.append(BenchRow(NAME, config, f"absent: no {data_root() / config}; set ROWSTREAM_DATA"))
    return rows


def _measure(config: str, codec: str, budget: int, steps: int) -> BenchRow:
    off = "{" + ", ".join(f"{table}: {{enabled: false}}" for table in NOT_STREAMED[config]) + "}"
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
    fewer = summary["bytes_if_raw"] / summary["bytes_streamed"]
    effort, fresh = summary["best_effort"], replica["freshness_ms"]
    measured = (
        f"{fewer:.1f}x fewer bytes, {summary['over_budget_bytes'] / summary['bytes_streamed']:.0%} of them beyond the budget; "
        f"oldest unsent row {effort['longest_wait_s']:.1f} s; whole steps p50 {fresh['p50'] / 1e3:.1f} s, max {fresh['max'] / 1e3:.1f} s"
    )
    rate = summary["steps"] * BATCH / summary["seconds"]
    knobs = {"steps": steps, "setting": " ".join(SETTING), "samples/s": f"{rate:,.0f}"}
    what = f"{config}: {codec}, budget {budget / 1000:,.0f} kB/s"
    return BenchRow(NAME, what, measured, "rows of each step as fp32", "1x", f">= {GOAL:g}x", fewer >= GOAL, knobs)
