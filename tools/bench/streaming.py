"""What streaming costs and gives, on real logs: one setting for overhead and freshness, runs in turn."""

from __future__ import annotations

import statistics
from typing import Any

from tools.bench.jobs import data_root, have_data, run_config, scratch
from tools.bench.report import BenchRow

NAME = "streaming"
HELP = "globo and brunch: samples/s with the stream on against off, freshness of every step, bytes on the wire"

SETTING = ("stages.stream.every=25ms", "stages.stream.codec=fp16")
OFF = ("stages.stream.enabled=false",)
GOAL_SHARE, GOAL_P50_MS, GOAL_P99_MS = 0.97, 20.0, 100.0


def run(quick: bool) -> list[BenchRow]:
    rows = []
    for config in ("globo", "brunch"):
        if have_data(config):
            rows += _measure(config, steps=300 if quick else 1000, rounds=2 if quick else 3)
        else:
            rows.append(BenchRow(NAME, config, f"absent: no {data_root() / config}; set ROWSTREAM_DATA"))
    return rows


def _measure(config: str, steps: int, rounds: int) -> list[BenchRow]:
    """Runs off, on, on with a replica process, in turn, ``rounds`` times; ratios are taken within a round."""
    alone: list[float] = []
    followed: list[float] = []
    rates: list[float] = []
    last: dict[str, Any] = {}
    freshness: dict[str, list[float]] = {"p50": [], "p99": [], "max": []}
    with scratch() as directory:
        for number in range(rounds):
            limit = f"run.steps={steps}"
            off, _ = run_config(config, directory / f"off{number}", (limit, *OFF))
            on, _ = run_config(config, directory / f"on{number}", (limit, *SETTING))
            last, replica = run_config(config, directory / f"replica{number}", (limit, *SETTING), replica=True)
            alone.append(on["samples_per_s"] / off["samples_per_s"])
            followed.append(last["samples_per_s"] / off["samples_per_s"])
            rates.append(off["samples_per_s"])
            for key, values in freshness.items():
                values.append(replica["freshness_ms"][key])
    knobs = {"steps": steps, "rounds": rounds, "setting": " ".join(SETTING)}
    return [
        _share(f"{config}: samples/s, stream on, replica process off", alone, rates, knobs),
        _share(f"{config}: samples/s, stream on, replica process on", followed, rates, knobs),
        _fresh(config, freshness, knobs),
        _bytes(config, last, knobs),
        _cut(config, last, knobs),
    ]


def _share(what: str, ratios: list[float], rates: list[float], knobs: dict[str, Any]) -> BenchRow:
    share = statistics.median(ratios)
    measured = f"{share:.3f} of off (median; {min(ratios):.3f} to {max(ratios):.3f})"
    off = f"{statistics.median(rates):,.0f} samples/s"
    return BenchRow(NAME, what, measured, "stream off", off, f">= {GOAL_SHARE}", share >= GOAL_SHARE, knobs)


def _fresh(config: str, freshness: dict[str, list[float]], knobs: dict[str, Any]) -> BenchRow:
    p50, p99, worst = (statistics.median(freshness[key]) for key in ("p50", "p99", "max"))
    return BenchRow(
        NAME,
        f"{config}: freshness of every step, replica in another process",
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {worst:.1f} ms",
        goal=f"p50 <= {GOAL_P50_MS:.0f} ms, p99 <= {GOAL_P99_MS:.0f} ms",
        met=p50 <= GOAL_P50_MS and p99 <= GOAL_P99_MS,
        knobs=knobs,
    )


def _cut(config: str, summary: dict[str, Any], knobs: dict[str, Any]) -> BenchRow:
    """What a cut takes of the stream's lane, waiting for the disk and for the interpreter's lock included."""
    lane = summary["lanes"]["stream"]
    share = lane["busy_s"] / summary["seconds"]
    measured = f"{lane['busy_s'] / lane['calls'] * 1e3:.1f} ms a cut, {share:.0%} of the run"
    return BenchRow(NAME, f"{config}: the stream's lane is busy", measured, knobs=knobs)


def _bytes(config: str, summary: dict[str, Any], knobs: dict[str, Any]) -> BenchRow:
    ratio = summary["bytes_if_raw"] / summary["bytes_streamed"]
    rows_per_s = summary["rows_streamed"] / summary["seconds"]
    return BenchRow(
        NAME,
        f"{config}: bytes on the wire, rows streamed",
        f"{summary['bytes_streamed'] / 1e6:.1f} MB ({ratio:.2f}x fewer), {rows_per_s:,.0f} rows/s",
        "bytes_if_raw",
        f"{summary['bytes_if_raw'] / 1e6:.1f} MB",
        knobs=knobs,
    )
