"""What streaming costs and gives, on real logs: one setting, and one run for overhead and freshness.

The overhead is taken in windows of that run, in turn with the stream and without it (``stream_windows``), and the freshness of its steps
in the windows with it; a whole snapshot cut is made in it. Bytes, and freshness over JetStream, come from runs that stream throughout.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from tools.bench.jobs import data_root, have_data, measure_windows, run_config, scratch
from tools.bench.report import BenchRow
from tools.bench.servers import ABSENT, jetstream
from tools.bench.stream_windows import SETTLE_STEPS, WINDOW_STEPS
from tools.bench.threads import per_step

NAME = "streaming"
HELP = "globo and brunch: samples/s with the stream on against off, freshness of every step, bytes on the wire"

SETTING = ("stages.stream.every=25ms", "stages.stream.codec=fp16")
GOAL_SHARE, GOAL_P50_MS, GOAL_P99_MS, GOAL_JETSTREAM_P99_MS = 0.97, 20.0, 100.0, 1000.0


def run(quick: bool) -> list[BenchRow]:
    rows = []
    for config in ("globo", "brunch"):
        if have_data(config):
            rows += _measure(config, *((600, 300) if quick else (3000, 1000)))
        else:
            rows.append(BenchRow(NAME, config, f"absent: no {data_root() / config}; set ROWSTREAM_DATA"))
    return rows


def _measure(config: str, paired_steps: int, steps: int) -> list[BenchRow]:
    with scratch() as directory:
        alone = measure_windows(config, directory / "alone", _given(paired_steps))
        followed = measure_windows(config, directory / "followed", _given(paired_steps), replica=True)
        summary, _ = run_config(config, directory / "fresh", _given(steps), replica=True)
        over_jetstream = _over_jetstream(config, directory / "jetstream", _given(steps))
    setting = " ".join(SETTING)
    knobs = {"steps": steps, "setting": setting}
    paired = {"steps": paired_steps, "windows": 2 * len(alone["on_ms"]), "setting": setting}
    snapshots = {"snapshot_cuts": followed["snapshot_cuts"]}
    return [
        _share(f"{config}: samples/s, stream on, replica process off", alone, paired),
        _threads(config, alone, paired),
        _share(f"{config}: samples/s, stream on, replica process on", followed, paired),
        _fresh(config, followed["replica"]["freshness_ms"], paired | snapshots),
        over_jetstream,
        _bytes(config, summary, knobs),
        _cut(config, summary, knobs),
    ]


def _given(steps: int) -> tuple[str, ...]:
    """One whole snapshot cut in the middle."""
    return (f"run.steps={steps}", f"stages.stream.snapshot_every={steps * 2 // 3} steps", *SETTING)


def _share(what: str, windows: dict[str, Any], knobs: dict[str, Any]) -> BenchRow:
    """The median over pairs of neighbouring windows, and the range that holds the middle half of them."""
    ratios = [off / on for off, on in zip(windows["off_ms"], windows["on_ms"], strict=True)]
    low, share, high = statistics.quantiles(ratios, n=4)
    rate = windows["batch"] / statistics.median(windows["off_ms"]) * 1e3
    measured = f"{share:.3f} of off (median of pairs; middle half {low:.3f} to {high:.3f})"
    return BenchRow(
        NAME, what, measured, "stream off", f"{rate:,.0f} samples/s", f">= {GOAL_SHARE}", share >= GOAL_SHARE, knobs
    )


def _threads(config: str, windows: dict[str, Any], knobs: dict[str, Any]) -> BenchRow:
    """What each thread took of a step, and the time it waited for a processor: where the difference is lost."""
    in_window = WINDOW_STEPS - SETTLE_STEPS
    steps = len(windows["on_ms"]) * in_window
    on, off = (
        per_step(windows[f"{side}_times"], sum(windows[f"{side}_ms"]) / 1e3 * in_window, steps)
        for side in ("on", "off")
    )
    what = f"{config}: ms a step that each thread ran (and waited for a processor), stream on"
    return BenchRow(NAME, what, on, "stream off", off, knobs=knobs)


def _fresh(config: str, freshness: dict[str, float], knobs: dict[str, Any]) -> BenchRow:
    p50, p99, worst = (freshness[key] for key in ("p50", "p99", "max"))
    return BenchRow(
        NAME,
        f"{config}: freshness of every step in the windows with the stream, the same run",
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {worst:.1f} ms",
        goal=f"p50 <= {GOAL_P50_MS:.0f} ms, p99 <= {GOAL_P99_MS:.0f} ms",
        met=p50 <= GOAL_P50_MS and p99 <= GOAL_P99_MS,
        knobs=knobs,
    )


def _over_jetstream(config: str, directory: Path, overrides: tuple[str, ...]) -> BenchRow:
    """The same run, its stream carried by a NATS server that is started for it."""
    what = f"{config}: freshness of every step, over JetStream"
    with jetstream(directory / "server") as url:
        if url is None:
            return BenchRow(NAME, what, ABSENT)
        transport = ("kind=nats", f"url={url}", "stream=bench")
        given = [*overrides, *(f"stages.stream.transport.{setting}" for setting in transport)]
        summary, replica = run_config(config, directory / "run", given, replica=f"{url}/bench")
    p50, p99, worst = (replica["freshness_ms"][key] for key in ("p50", "p99", "max"))
    return BenchRow(
        NAME,
        what,
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {worst:.1f} ms",
        goal=f"p99 <= {GOAL_JETSTREAM_P99_MS:.0f} ms",
        met=p99 <= GOAL_JETSTREAM_P99_MS,
        knobs={"setting": " ".join(overrides), "snapshot_cuts": summary["snapshot_cuts"]},
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
