"""How much of a globo step lies outside kernels and torch: the price of the staged pipeline itself."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.bench.jobs import ROOT, data_root, have_data, scratch
from tools.bench.report import BenchRow

NAME = "step"
HELP = "share of a globo step's wall time outside kernels and torch"
GOAL_SHARE = 0.03
WARM_STEPS = 50


class Stopwatch:
    """Adds up the wall time of the calls it wraps; all of them run on the compute lane, one after the other."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, holder: Any, name: str) -> None:
        """Replace ``holder.name`` by a timed twin."""
        call: Callable[..., Any] = getattr(holder, name)

        def timed(*arguments: Any, **keywords: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **keywords)
            finally:
                self.seconds += time.perf_counter() - started

        setattr(holder, name, timed)


def run(quick: bool) -> list[BenchRow]:
    if not have_data("globo"):
        return [BenchRow(NAME, "globo", f"absent: no {data_root() / 'globo'}; set ROWSTREAM_DATA")]
    steps = 300 if quick else 1000
    with scratch() as directory:
        command = [sys.executable, "-m", "tools.bench.step_share", str(directory / "run"), str(steps)]
        out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=1200).stdout
    figures = json.loads(out.splitlines()[-1])
    share = 1 - figures["inside_s"] / figures["wall_s"]
    return [
        BenchRow(
            NAME,
            "globo: wall time of a step outside kernels and torch",
            f"{share:.1%} of {figures['wall_s'] / figures['steps'] * 1e3:.2f} ms",
            goal=f"<= {GOAL_SHARE:.0%}",
            met=share <= GOAL_SHARE,
            knobs={"steps": figures["steps"], "stream": "off", "threads": figures["threads"]},
        )
    ]


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
    marks: dict[int, tuple[float, float]] = {}

    import torch

    from pipeline.session.resources import Resources

    def watch_all(resources: Resources) -> None:
        watch.wrap(resources.by_name["backend"], "gather_pool")
        watch.wrap(resources.by_name["backend"], "update")
        watch.wrap(resources.model, "forward")
        watch.wrap(resources.optimizer, "step")
        watch.wrap(torch.Tensor, "backward")
        watch.wrap(torch.nn.functional, "binary_cross_entropy_with_logits")
        resources.store.on_step(lambda step, _plan: marks.update({step: (time.perf_counter(), watch.seconds)}))

    with claim(directory, seed=0, record={}, overwrite=False) as info:
        trainer = Trainer(plan, info)
        trainer.on_open.append(watch_all)
        trainer.train()
    (begin, before), (end, after) = marks[WARM_STEPS], marks[max(marks)]
    counted = max(marks) - WARM_STEPS
    return {"steps": counted, "wall_s": end - begin, "inside_s": after - before, "threads": plan.settings.run.threads}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
