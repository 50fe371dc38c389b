"""One training run in which the stream is switched off and on in turn: what streaming costs, free of a machine's moods.

Two whole runs on a shared machine differ by more than what is to be measured; two neighbouring windows of one run do not. In a window
without the stream no step is told to it, so there is nothing to cut. The first steps of each window, in which the last cut of the one
before may still be published, do not count.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.bench.threads import Times, thread_times

if TYPE_CHECKING:
    from pipeline.session.resources import Resources

WINDOW_STEPS = 12
SETTLE_STEPS = 2
WARM_STEPS = 100


class Windows:
    """A step listener that switches ``on``, of what is measured, and takes the time."""

    def __init__(self) -> None:
        self.on = True
        self.ms: dict[bool, list[float]] = {True: [], False: []}
        """Milliseconds of a step, window by window, by whether it was on."""
        self.times: dict[bool, Times] = {True: {}, False: {}}
        """What each thread ran and waited in these windows, in all."""
        self._began, self._times_began = 0.0, Times()

    def at_fence(self, step: int, _plan: Any) -> None:
        place = (step - WARM_STEPS) % WINDOW_STEPS
        if step < WARM_STEPS:
            return
        now = time.perf_counter()
        if place == 0 and self._began:
            self.ms[self.on].append((now - self._began) / (WINDOW_STEPS - SETTLE_STEPS) * 1e3)
            total = self.times[self.on]
            for name, seconds in thread_times().items():
                total[name] = total.get(name, 0.0) + seconds - self._times_began.get(name, 0.0)
        if place == 0:
            self.on = not self.on
        if place == SETTLE_STEPS:
            self._times_began = thread_times()
            self._began = time.perf_counter()


def measure(config: str, directory: Path, overrides: list[str]) -> dict[str, Any]:
    """Train ``config``. Returns the windows' times, as many with the stream as without, in the order of the run."""
    from pipeline.session import environment

    environment.pin()
    from stages.stream import Stream

    windows, tell = Windows(), Stream._at_fence

    def tell_or_not(self: Stream, step: int, plan: Any) -> None:
        if windows.on:
            tell(self, step, plan)

    Stream._at_fence = tell_or_not  # type: ignore[method-assign]
    return train_in_windows(windows, config, directory, overrides)


def train_in_windows(
    windows: Windows,
    config: str,
    directory: Path,
    overrides: list[str],
    beside: Callable[[Resources], None] = lambda _resources: None,
) -> dict[str, Any]:
    """Train ``config`` to its end; ``beside`` is given the open resources before the first step."""
    from pipeline.session import environment

    environment.pin()
    environment.keep_freed_memory()
    from pipeline.config import load
    from pipeline.session.plan import make_plan
    from pipeline.session.rundir import claim
    from pipeline.session.settings import Settings
    from pipeline.session.trainer import Trainer

    plan = make_plan(load([config], [f"run.dir={directory}", "replica.embedded=false", *overrides], Settings))
    with claim(directory, seed=0, record={}, overwrite=False) as info:
        trainer = Trainer(plan, info)
        trainer.on_open.append(lambda _resources: environment.leave_start_to_itself())
        trainer.on_open.append(lambda resources: resources.store.on_step(windows.at_fence))
        trainer.on_open.append(beside)
        _, summary = trainer.train()
    pairs = min(len(windows.ms[True]), len(windows.ms[False]))
    return {
        "on_ms": windows.ms[True][:pairs],
        "off_ms": windows.ms[False][:pairs],
        "on_times": windows.times[True],
        "off_times": windows.times[False],
        "batch": summary["samples"] / summary["steps"],
        "snapshot_cuts": summary.get("snapshot_cuts", 0),
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])))
