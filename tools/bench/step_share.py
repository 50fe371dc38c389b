"""How much of a globo step lies outside kernels and torch: the price of the staged pipeline itself."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.bench.jobs import ROOT, data_root, have_data, scratch
from tools.bench.report import BenchRow

if TYPE_CHECKING:
    from pipeline.session.resources import Resources

NAME = "step"
HELP = "share of a globo step's wall time outside kernels and torch"
GOAL_SHARE = 0.03
WARM_STEPS = 50
STAGES = ("lookup", "train", "update")


class Stopwatch:
    """Adds up, by name, the wall time of the calls it wraps; all of them run on the compute lane, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, holder: Any, name: str, sum_name: str) -> None:
        """Replace ``holder.name`` by a timed twin that adds to ``sum_name``."""
        call: Callable[..., Any] = getattr(holder, name)
        self.seconds.setdefault(sum_name, 0.0)

        def timed(*arguments: Any, **keywords: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **keywords)
            finally:
                self.seconds[sum_name] += time.perf_counter() - started

        setattr(holder, name, timed)


def run(quick: bool) -> list[BenchRow]:
    if not have_data("globo"):
        return [BenchRow(NAME, "globo", f"absent: no {data_root() / 'globo'}; set ROWSTREAM_DATA")]
    steps = 300 if quick else 1000
    with scratch() as directory:
        command = [sys.executable, "-m", "tools.bench.step_share", str(directory / "run"), str(steps)]
        out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=1200).stdout
    return _rows(json.loads(out.splitlines()[-1]))


def _rows(figures: dict[str, Any]) -> list[BenchRow]:
    """The share, and below it where it lies: ``ms`` are milliseconds of a step by sum name."""
    ms, wall_ms = figures["ms"], figures["wall_ms"]
    outside_ms = {stage: ms[f"{stage} work"] - ms[f"{stage} inside"] for stage in STAGES}
    outside_ms["between visits"] = wall_ms - sum(ms[f"{stage} work"] for stage in STAGES)
    share = sum(outside_ms.values()) / wall_ms
    knobs = {"steps": figures["steps"], "stream": "off", "threads": figures["threads"]}
    total = BenchRow(
        NAME,
        "globo: wall time of a step outside kernels and torch",
        f"{share:.1%} of {wall_ms:.2f} ms",
        goal=f"<= {GOAL_SHARE:.0%}",
        met=share <= GOAL_SHARE,
        knobs=knobs,
    )
    parts = [BenchRow(NAME, f"of it: {part}", f"{value:.2f} ms", knobs=knobs) for part, value in outside_ms.items()]
    return [total, *parts]


def measure(directory: Path, steps: int) -> dict[str, Any]:
    """Train globo with the stream off; time each kernel and torch call of the compute lane."""
    from pipeline.session import environment

    environment.pin()
    environment.keep_freed_memory()
    from pipeline.config import load
    from pipeline.session.plan import make_plan
    from pipeline.session.rundir import claim
    from pipeline.session.settings import Settings
    from pipeline.session.trainer import Trainer

    overrides = [f"run.dir={directory}", f"run.steps={steps}", "stages.stream.enabled=false"]
    plan = make_plan(load(["globo"], overrides, Settings))
    watch: Stopwatch = Stopwatch()
    marks: dict[int, tuple[float, dict[str, float]]] = {}

    def watch_all(resources: Resources) -> None:
        watch_calls(watch, resources)
        resources.store.on_step(lambda step, _plan: marks.update({step: (time.perf_counter(), dict(watch.seconds))}))

    with claim(directory, seed=0, record={}, overwrite=False) as info:
        trainer = Trainer(plan, info)
        trainer.on_open.append(lambda _resources: environment.leave_start_to_itself())
        trainer.on_open.append(watch_all)
        trainer.train()
    (begin, before), (end, after) = marks[WARM_STEPS], marks[max(marks)]
    counted = max(marks) - WARM_STEPS
    ms = {name: (after[name] - before[name]) / counted * 1e3 for name in after}
    return {
        "steps": counted,
        "wall_ms": (end - begin) / counted * 1e3,
        "ms": ms,
        "threads": plan.settings.run.threads,
    }


def watch_calls(watch: Stopwatch, resources: Resources) -> None:
    """Time each stage's work on the compute lane, and inside it the kernels and torch."""
    import torch

    from stages.lookup import Lookup
    from stages.train import Train
    from stages.update import Update

    for stage in (Lookup, Train, Update):
        watch.wrap(stage, "work", f"{stage.__name__.lower()} work")
    watch.wrap(resources.by_name["backend"], "gather_pool", "lookup inside")
    watch.wrap(resources.model, "forward", "train inside")
    watch.wrap(torch.nn.functional, "binary_cross_entropy_with_logits", "train inside")
    watch.wrap(torch.Tensor, "backward", "train inside")
    watch.wrap(torch, "from_numpy", "train inside")
    watch.wrap(resources.optimizer, "zero_grad", "train inside")  # gives torch's gradients back, nothing else
    watch.wrap(resources.by_name["backend"], "update", "update inside")
    watch.wrap(resources.optimizer, "step", "update inside")


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
