"""What the command line does. Each function returns an exit code; errors are raised and printed above.

torch loads here, so the environment is pinned first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.session import environment

if TYPE_CHECKING:
    from pipeline.config import Loaded
    from pipeline.flow import RunReport
    from pipeline.session.plan import Plan
    from pipeline.session.resume import Resume
    from pipeline.session.settings import Settings
    from pipeline.session.trainer import Trainer

DONE, FAILED, INTERRUPTED = 0, 1, 130


def _load(sources: Sequence[str], overrides: Sequence[str]) -> tuple[Loaded[Settings], Plan]:
    environment.pin()
    from pipeline.config import load
    from pipeline.session.plan import make_plan
    from pipeline.session.settings import Settings

    loaded = load(sources, overrides, Settings)
    return loaded, make_plan(loaded)


def run(
    sources: Sequence[str],
    overrides: Sequence[str],
    *,
    overwrite: bool,
    resume: bool = False,
    accept: Sequence[str] = (),
) -> int:
    """Train. The summary goes to RUN_DIR/summary.json and, in short, to the terminal.

    ``accept`` names what may differ from the run that is resumed although it changes what is computed.
    """
    _, plan = _load(sources, overrides)
    environment.keep_freed_memory()
    from pipeline.session.publishing import is_published
    from pipeline.session.rundir import claim, claim_again, died_unborn
    from pipeline.session.trainer import Trainer

    settings = plan.settings
    described = {"environment": environment.record(settings.run.threads), "config": plan.tree}
    unborn = resume and died_unborn(settings.run.dir)
    if unborn:
        print(f"{settings.run.dir}: nothing to resume, no run had begun here; it begins now", file=sys.stderr)
    if resume and not unborn:
        look = partial(look_for_resume, plan, described, accept)
        with claim_again(settings.run.dir, look, record=described) as (info, going_on):
            report, summary = _train(Trainer(plan, info, resume=going_on))
    else:
        with claim(settings.run.dir, seed=settings.run.seed, record=described, overwrite=overwrite) as info:
            report, summary = _train(Trainer(plan, info))
    print(short_report(summary, info.dir))
    if not is_published(summary):
        return FAILED
    return INTERRUPTED if report.outcome == "interrupt" else DONE


def import_rows(
    sources: Sequence[str],
    overrides: Sequence[str],
    tables: Sequence[str],
    files: Sequence[Path],
    *,
    fresh_states: bool,
    overwrite: bool,
    resume: bool = False,
) -> int:
    """Make a run directory whose checkpoint of step 0 holds rows of these files, a file for each table; with ``resume`` put them into the
    run that is there, as the step behind its newest checkpoint.
    """
    _, plan = _load(sources, overrides)
    from rich.console import Console

    from pipeline.session.importing import import_tables, imports_of
    from pipeline.session.importing_into import import_into

    settings = plan.settings
    described = {"environment": environment.record(settings.run.threads), "config": plan.tree}
    imports = imports_of(plan, tables, files, fresh_states)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with console.status("reading ...") as status:
        if resume:
            look = partial(look_for_resume, plan, described, ())
            step = import_into(plan, imports, described, look, say=status.update)
        else:
            import_tables(plan, imports, described, overwrite=overwrite, say=status.update)
            step = 0
    for name, one in imports.items():
        print("\n".join([f"{name}: {one.num_rows} rows", *one.notes]))
    print(f"in {settings.run.dir}: a checkpoint of step {step}; run --resume trains on from it")
    return DONE


def _train(trainer: Trainer) -> tuple[RunReport, dict[str, Any]]:
    trainer.on_open.append(lambda _resources: environment.leave_start_to_itself())
    return trainer.train()


def look_for_resume(plan: Plan, now: dict[str, Any], accept: Sequence[str], before: dict[str, Any]) -> Resume:
    """What the run in the plan's directory, which began as ``before`` says, goes on from.

    Raises OtherJob, NotAcceptable, NeedlessAccept, OtherCheckpoint.
    """
    from pipeline.session.accepting import accepted
    from pipeline.session.resume import Resume

    path = plan.settings.run.dir
    differs = accepted(path, before, json.loads(json.dumps(now, default=str)), accept)
    resume = Resume.newest(path)
    resume.check(plan.specs)
    resume.accepted = differs
    return resume


def short_report(summary: dict[str, Any], run_dir: Path) -> str:
    """A few lines for people."""

    def figure(name: str, form: str = ".4f") -> str:
        value = summary.get(name)
        return "-" if value is None else format(value, form)

    freshness = summary["freshness_ms"] or {"p50": None}
    fresh = "-" if freshness["p50"] is None else f"p50 {freshness['p50']:.1f} ms, p99 {freshness['p99']:.1f} ms"
    l1 = summary["l1"]
    looked = max(l1["hits"] + l1["misses"], 1)
    saved = summary["bytes_if_raw"] / summary["bytes_streamed"] if summary["bytes_streamed"] else 0.0
    hooks = [
        f"{hook['skipped']} of {hook['calls']} hook calls failed and were skipped; the first: {hook['first_error']}"
        for hook in summary["hooks"]
        if hook["skipped"]
    ]
    amiss = [
        f"{summary[name]} {what}"
        for name, what in (("skipped", "bad lines or items were skipped"), ("lost", "changed rows were not published"))
        if summary[name]
    ]
    stream = summary["stream"]
    if stream is not None and stream["state"] != "ok":
        amiss.append(
            f"the stream is behind since {stream['since']}: {stream['last_error'] or 'it was too slow'}; "
            f"`python -m pipeline publish {run_dir}` sends what is left"
        )
    return "\n".join(
        [
            *amiss,
            *hooks,
            f"{summary['outcome']}: {summary['steps']} steps, {summary['samples']} samples in {summary['seconds']:.1f} s "
            f"({summary['samples_per_s']:,.0f} samples/s), bottleneck {summary['bottleneck']}",
            f"train: log loss {figure('train_log_loss')}, AUC {figure('train_auc')}   "
            f"held out: log loss {figure('eval_log_loss')}, AUC {figure('eval_auc')}",
            f"L1: {l1['hits'] / looked:.1%} hits, {l1['evictions']} evictions   rows updated {summary['rows_updated']}",
            f"stream: {summary['cuts']} cuts, {summary['rows_streamed']} rows, {summary['bytes_streamed']} bytes "
            f"({saved:.1f}x fewer than raw), freshness {fresh}",
            f"in {run_dir}: summary.json, checkpoints/" + (", stream/" if (run_dir / "stream").exists() else ""),
        ]
    )


def publish(run_dir: Path, timeout: str) -> int:
    """Send what a run that has ended could not."""
    environment.pin()
    from pipeline.session.publishing import publish as publish_rest

    done = publish_rest(run_dir, timeout)
    if done.cuts is None:
        print(f"{run_dir}: nothing is left to publish, replicas have step {done.step}")
        return DONE
    if done.is_whole:
        print(f"{run_dir}: published {done.rows} rows in {done.cuts} cuts; replicas have step {done.step}")
        return DONE
    print(short_report(dict(done.summary), run_dir))
    return FAILED


def check(sources: Sequence[str], overrides: Sequence[str]) -> int:
    """Compose, validate, plan; run nothing."""
    _, plan = _load(sources, overrides)
    print(plan.graph.describe())
    print(
        f"{len(plan.specs)} tables, {len(plan.features.names)} features, L1 {plan.settings.store.l1_rows} rows: this can run"
    )
    for stage in plan.graph.stages:
        for note in getattr(stage.options, "notes", tuple)():
            print(f"note: {note}")
    return DONE


def show(sources: Sequence[str], overrides: Sequence[str]) -> int:
    """Print the effective config with the origin of each key, and the graph."""
    loaded, plan = _load(sources, overrides)
    print(loaded.describe())
    print()
    print(plan.graph.describe())
    return DONE


def schema() -> int:
    """Print the JSON Schema of a config."""
    environment.pin()
    from pipeline.config import schema as schema_of
    from pipeline.session.settings import Settings

    print(json.dumps(schema_of(Settings), indent=1))
    return DONE


def rows(run_dir: Path, table: str, ids: Sequence[int], as_json: bool) -> int:
    """Print weights, states and versions of some rows of a run's newest checkpoint."""
    from pipeline.session.inspect_rows import describe_rows, print_rows

    found = describe_rows(run_dir, table, ids)
    if as_json:
        json.dump(found, sys.stdout)
        print()
    else:
        print_rows(found)
    return DONE


def export(run_dir: Path, table: str | None, dense: bool, out: Path) -> int:
    """Write a table, or the dense weights, of a run's newest checkpoint to an npz."""
    from pipeline.rowlog import export_dense, export_table
    from pipeline.session.inspect_rows import newest_checkpoint

    reader = newest_checkpoint(run_dir)
    if dense:
        export_dense(reader, str(out))
    else:
        assert table is not None
        export_table(reader, table, str(out))
    print(f"step {reader.manifest.step}: wrote {out}")
    return DONE
