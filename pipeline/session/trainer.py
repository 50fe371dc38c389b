"""One training run: opens the resources, runs the graph, writes the checkpoint and the summary."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.flow import Every, LaneOptions, Lanes, Marker, Runner, RunReport, run_loop
from pipeline.flow.run_info import RunInfo
from pipeline.session.disk import Disk
from pipeline.session.live_rows import LiveRows
from pipeline.session.plan import Plan
from pipeline.session.progress import Progress
from pipeline.session.resources import Resources
from pipeline.session.resume import Resume
from pipeline.session.summary import summarize, write_summary

if TYPE_CHECKING:
    from pipeline.session.follower import Follower

BACKGROUND_LANES = ("stream", "stream_snapshot", "checkpoint", "eval")
"""Not ``stream_compact``: where the changed set is crowded, steps wait for it."""


class Trainer:
    """Runs a plan in a claimed directory. ``perturb`` is for tests: delays that must change nothing."""

    def __init__(
        self,
        plan: Plan,
        run: RunInfo,
        *,
        resume: Resume | None = None,
        perturb: Any = None,
        handle_signals: bool = True,
        disk: Disk | None = None,
    ) -> None:
        """``resume``: what to go on from; None begins at the first step."""
        self.plan, self.run, self._resume, self._disk = plan, run, resume, disk or Disk()
        if resume is not None:
            self.run = replace(run, resumed=resume.told())
        self._perturb, self._handle_signals = perturb, handle_signals
        self.checkpoint: Path | None = None
        self.resources: Resources | None = None
        self.on_open: list[Callable[[Resources], None]] = []
        """Called with the open resources before the first item, for those who want to watch the store."""

    def train(self) -> tuple[RunReport, dict[str, Any]]:
        """Run to the end, the step limit or an interrupt. Returns the report and the summary; raises StageError and others."""
        progress = Progress(self._figures)
        opened = Resources(self.plan, self.run, progress.say, self._resume, self._disk)
        with opened as resources, ExitStack() as stack:
            self.resources = resources
            for call in self.on_open:
                call(resources)
            stack.enter_context(closing(self._live_rows(resources, progress.say)))
            follower = self._follower(resources)
            try:
                started = time.monotonic()
                with progress, self._lanes() as lanes:
                    report = run_loop(lambda: self._run(resources, lanes, progress.show))
                seconds = time.monotonic() - started
                followed = None if follower is None else follower.finish()
            finally:
                if follower is not None:
                    follower.close()
            summary = summarize(self.plan, self.run, resources, report, seconds, followed)
            write_summary(self._disk.files, self.run.dir, summary)
        return report, summary

    def _live_rows(self, resources: Resources, say: Callable[[str], None]) -> LiveRows:
        live_rows = LiveRows(resources.store, self.run.dir)
        try:
            live_rows.start()
        except OSError as error:
            say(f"`rows` will not be answered while this run goes on: {error}")
        return live_rows

    def _follower(self, resources: Resources) -> Follower | None:
        wanted = self.plan.settings.replica
        options = next((stage.options for stage in self.plan.graph.stages if stage.name == "stream"), None)
        if options is None or not wanted.embedded:
            return None
        from pipeline.session.follower import Follower

        source = getattr(options, "source", str)(self.run.dir)
        follower = Follower(source, wanted.pinned_bytes)
        follower.start()
        # By the end of a step all stages are open.
        resources.store.on_step(lambda _step, _plan: follower.begin())
        return follower

    def _lanes(self) -> Lanes:
        """OpenMP counts threads per calling thread, so the lane that computes is told how many it has."""
        run = self.plan.settings.run
        lanes = {name: LaneOptions(nice=run.background_nice) for name in BACKGROUND_LANES}
        return Lanes({"compute": LaneOptions(start=partial(torch.set_num_threads, run.threads)), **lanes})

    async def _run(self, resources: Resources, lanes: Lanes, show: Callable[[], None]) -> RunReport:
        settings = self.plan.settings
        checkpoint_lane, every = lanes.get("checkpoint"), Every.parse(settings.checkpoint.every)

        async def on_marker(marker: Marker) -> None:
            try:
                self.checkpoint = await checkpoint_lane.run(resources.checkpoints.write, marker) or self.checkpoint
            finally:
                resources.checkpoints.done(marker)

        runner = Runner(
            self.plan.graph,
            resources.by_name,
            lanes,
            marker_every=every if every is not None and every.seconds is not None else None,
            on_marker=on_marker,
            on_progress=show,
            progress_every_s=settings.run.progress_s,
            restore=None if self._resume is None else self._resume.states,
            perturb=self._perturb,
            handle_signals=self._handle_signals,
        )
        self._runner = runner
        resources.step_limit.stop = runner.request_stop
        if resources.step_limit.reached(resources.store.fence.step):
            runner.request_stop("limit")  # a resumed run that has come to its end already
        if every is not None and every.items is not None:
            resources.store.on_step(partial(_mark_every, every.items, asyncio.get_running_loop(), runner))
        return await runner.run()

    def _figures(self) -> dict[str, Any]:
        resources = self.resources
        assert resources is not None
        totals, store, metrics = resources.totals, resources.store, resources.metrics
        looked = max(store.counters.hits + store.counters.misses, 1)
        figures = {
            "step": totals.steps,
            "samples": totals.samples,
            "samples/s": f"{totals.samples_per_s:,.0f}",
            "loss": f"{metrics.log_loss:.4f}" if metrics.count else "-",
            "hit rate": f"{store.counters.hits / looked:.1%}",
        }
        if store.counters.bad_gradients:
            figures["bad gradients"] = store.counters.bad_gradients.total()
        for name, stage in self._runner.progress().channels.items():
            figures[f"depth {name}"] = stage.depth
        if store.hooks.skipped:
            figures["hook calls skipped"] = store.hooks.skipped
        figures |= {key: value for key, value in resources.stream_report.items() if key in ("lag_steps", "cuts")}
        if (effort := resources.stream_report.get("best_effort")) is not None:
            figures["unsent"] = f"{effort['unsent_rows']:,} rows, the oldest {effort['oldest_s']:.1f} s"
        stream = resources.stream_report.get("stream", {"state": "ok"})
        if stream["state"] != "ok":
            figures["stream"] = f"{stream['state']} since {stream['since']}: {stream['last_error']}"
        return figures


def _mark_every(steps: int, loop: asyncio.AbstractEventLoop, runner: Runner, step: int, _plan: Any) -> None:
    """A step listener: every so many steps it asks for a marker, which goes out behind the next batch the source sends."""
    if step % steps == 0:
        loop.call_soon_threadsafe(runner.request_marker)
