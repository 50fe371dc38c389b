"""``summary.json``: the final figures of a run, for programs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pipeline.files import Files, write_atomically
from pipeline.flow import RunReport
from pipeline.flow.run_info import RunInfo
from pipeline.models.digest import dense_digest
from pipeline.session.environment import record
from pipeline.session.plan import Plan
from pipeline.session.resources import Resources

NO_STREAM = {"rows_streamed": 0, "bytes_streamed": 0, "cuts": 0, "snapshot_cuts": 0, "abandoned": 0, "stream": None}


def summarize(
    plan: Plan, run: RunInfo, resources: Resources, report: RunReport, seconds: float, followed: dict[str, Any] | None
) -> dict[str, Any]:
    """Gather the figures. ``freshness_ms`` is null where no replica was embedded: then nobody measured it."""
    totals, counters, metrics = resources.totals, resources.store.counters, resources.metrics
    last_eval = resources.eval_results[-1] if resources.eval_results else {}
    return {
        "run_id": run.run_id,
        "generation": run.generation,
        "resumed_from": None if run.resumed is None else run.resumed.step,
        "outcome": report.outcome,
        "steps": totals.steps,
        "last_step": resources.store.fence.step,
        "samples": totals.samples,
        "seconds": seconds,
        "samples_per_s": totals.samples_per_s,
        "train_log_loss": _finite(metrics.log_loss),
        "train_auc": _finite(metrics.auc),
        "eval_log_loss": _finite(last_eval.get("log_loss")),
        "eval_auc": _finite(last_eval.get("auc")),
        "evals": resources.eval_results,
        "rows_updated": totals.rows_updated,
        "bytes_if_raw": totals.bytes_if_raw,
        **NO_STREAM,
        **resources.stream_report,
        "freshness_ms": None if followed is None else followed["freshness_ms"],
        "l1": {"hits": counters.hits, "misses": counters.misses, "evictions": counters.evictions},
        "store": resources.store.stats(),
        "hooks": resources.store.hooks.stats(),
        "checkpoints": resources.checkpoints.stats(),
        "channels": report.channel_figures(),
        "stages": report.stage_figures(),
        "lanes": report.lane_figures(),
        "bottleneck": report.bottleneck,
        "loop_lag_ms": report.loop_lag_ms,
        "skipped": report.skipped,
        "lost": resources.stream_report.get("unpublished_rows", 0),
        "tables": [spec.name for spec in plan.specs],
        "dense_digest": dense_digest(resources.model),
        "environment": record(plan.settings.run.threads),
    }


def _finite(value: float | None) -> float | None:
    """JSON has no NaN: a figure that does not exist (no samples, one class only) is null."""
    return value if value is not None and math.isfinite(value) else None


def write_summary(files: Files, run_dir: Path, summary: dict[str, Any]) -> None:
    text = json.dumps(summary, indent=1, allow_nan=False) + "\n"
    write_atomically(files, str(run_dir / "summary.json"), text.encode())
