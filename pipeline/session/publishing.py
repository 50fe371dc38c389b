"""``publish``: sends what a run that has ended could not, without training.

The run is gone on with, as ``run --resume`` does, and has come to its end already: its newest checkpoint has the rows, the stream says
which of them it lacks. So the log it read has to be where it was, and its rows need as much memory as it had.

A run that crashed is published up to its newest checkpoint, unless the stream is ahead of that: then only training gets there again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import load
from pipeline.files import RealFiles
from pipeline.session.errors import NoCheckpointYet, NothingStreamed, OtherCheckpoint, RunIsLive
from pipeline.session.plan import Plan, make_plan
from pipeline.session.resume import Resume
from pipeline.session.rundir import claim_again, describe, is_live
from pipeline.session.settings import Settings
from pipeline.session.summary import write_summary
from pipeline.session.trainer import Trainer
from pipeline.stream import read_backlog

TIMEOUT = "600s"
KEPT = ("generation", "resumed_from", "stream", "lost")
"""What the summary of the run says anew; all else stays as training left it."""


@dataclass(frozen=True, slots=True)
class Published:
    """``cuts`` None: there was nothing left to do."""

    step: int
    rows: int
    cuts: int | None
    summary: Mapping[str, Any]

    @property
    def is_whole(self) -> bool:
        return is_published(self.summary)


def is_published(summary: Mapping[str, Any]) -> bool:
    """Whether a run's stream, if it has one, has all of it."""
    stream = summary.get("stream")
    return not summary["lost"] and (stream is None or stream["state"] == "ok")


def publish(run_dir: Path, timeout: str = TIMEOUT) -> Published:
    """``timeout``: how long to try, as ``stages.stream.drain_timeout``.

    Raises RunIsLive, NoRun, NothingStreamed, NoCheckpointYet, CheckpointCorrupt, and what a run raises.
    """
    if is_live(run_dir):
        raise RunIsLive(run_dir)
    described = describe(run_dir)
    step, before = Resume.newest(run_dir).step, _summary(run_dir)
    if step == 0:
        raise NoCheckpointYet(run_dir)
    if read_backlog(run_dir) is None and _ended_well(described, before, step):
        return Published(step, 0, None, before)
    plan = _plan(run_dir, described, step, timeout)
    record = {key: described[key] for key in ("environment", "config")}
    with claim_again(run_dir, partial(_look, run_dir, plan, step), record=record) as (info, resume):
        _, summary = Trainer(plan, info, resume=resume).train()
        kept = {key: summary[key] for key in KEPT if key in summary}
        write_summary(RealFiles(), run_dir, {**(before or summary), **kept})
    return Published(step, summary["rows_streamed"], summary["cuts"], summary)


def _summary(run_dir: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((run_dir / "summary.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def _ended_well(described: Mapping[str, Any], summary: Mapping[str, Any], step: int) -> bool:
    """Whether the last process there said that it published all of the newest checkpoint."""
    same = bool(summary) and summary["generation"] == described["generation"] and summary["last_step"] == step
    return same and summary.get("stream") is not None and is_published(summary)


def _plan(run_dir: Path, described: Mapping[str, Any], step: int, timeout: str) -> Plan:
    """The run as it was, with its end where it is. Raises NothingStreamed, and ConfigError for a timeout that is none."""
    if not (described["config"]["stages"].get("stream") or {}).get("enabled", True):
        raise NothingStreamed(run_dir)
    with tempfile.TemporaryDirectory(prefix="rowstream-publish-") as directory:
        source = os.path.join(directory, "run.yaml")
        Path(source).write_text(yaml.safe_dump(described["config"], sort_keys=False))
        overrides = [f"run.dir={run_dir}", f"run.steps={step}", "replica.embedded=false"]
        plan = make_plan(load([source], [*overrides, f"stages.stream.drain_timeout='{timeout}'"], Settings))
    if all(stage.name != "stream" for stage in plan.graph.stages):
        raise NothingStreamed(run_dir)
    return plan


def _look(run_dir: Path, plan: Plan, step: int, _described: Mapping[str, Any]) -> Resume:
    """Nothing is computed, so nothing that would change what is computed matters."""
    resume = Resume.newest(run_dir)
    resume.check(plan.specs)
    if resume.step != step:
        raise OtherCheckpoint(
            str(run_dir), f"its newest checkpoint was of step {step} a moment ago, now of {resume.step}"
        )
    return resume
