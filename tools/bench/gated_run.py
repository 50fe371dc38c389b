"""A training run that goes on window by window, on request: the whole pipeline of a config, measured from one step's end to another's.

Between two windows the run is held at a step's end, on the compute lane, until what it still reads ahead, writes and compacts is done:
whoever measures something else then has the machine. A window begins some steps after that, when what was read ahead meanwhile is
used up, and ends while the pipeline is in full flow; so its time is that of steps in a long run.

Requests, one JSON object a line on standard input, each answered by one on standard output:

    {"run": steps}                     what the window took: see ``Figures``
    {"rows": {"table": T, "ids": [..]}}   weights as they stand
End of input ends the process as it stands: nobody wants the rows of a benchmark.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.bench.threads import thread_times

if TYPE_CHECKING:
    from pipeline.session.resources import Resources

QUIET_S, LOOKS = 0.05, 4
"""Quiet is when nothing has moved for so many looks at the counters, so far apart."""
Figures = dict[str, float]
"""``seconds`` and ``cpu_s`` of a window; what moved meanwhile in ``store.stats()``: ``misses``, ``ssd.reads`` and so on; the
``io.read_bytes`` and ``io.write_bytes`` of this process; and ``thread.NAME.ran`` and ``.waited`` of its threads, in seconds.
"""
CLOCKS = ("cpu_s", "thread.")
"""What moves although nothing is done."""
Prepare = Callable[["Resources"], None]


class Gate:
    """A step listener that holds the run between windows. ``settle``: steps of each window before it counts."""

    def __init__(self, resources: Resources, settle: int) -> None:
        self._store, self._settle = resources.store, settle
        self._began: Figures = {}
        self._first = self._last = 0

    def at_fence(self, step: int, _plan: Any) -> None:
        if step == self._first:
            figures = self._figures()
            self._began = {**figures, "seconds": time.perf_counter()}
        if step == self._last:
            ended = time.perf_counter()
            figures = {**self._figures(), "seconds": ended}
            _say({name: figures[name] - self._began.get(name, 0) for name in figures})
            self.next(step)

    def next(self, step: int) -> None:
        """Answer requests until one of them is to run; ``step`` has ended."""
        self._until_quiet()
        for line in sys.stdin:
            request = json.loads(line)
            if "run" in request:
                self._first = step + self._settle
                self._last = self._first + int(request["run"])
                return
            _say({"rows": self._weights(**request["rows"])})
        os._exit(0)

    def _weights(self, table: str, ids: list[int]) -> list[list[float]]:
        weights: list[list[float]] = self._store.fetch_rows(table, ids, states=False).weights_nd.tolist()
        return weights

    def _until_quiet(self) -> None:
        seen: list[Figures] = []
        while len(seen) < LOOKS or any(figures != seen[-1] for figures in seen[-LOOKS:]):
            time.sleep(QUIET_S)
            seen.append({name: value for name, value in self._figures().items() if not name.startswith(CLOCKS)})

    def _figures(self) -> Figures:
        threads = {f"thread.{name}": seconds for name, seconds in thread_times().items()}
        return {"cpu_s": time.process_time(), **_numbers("", self._store.stats()), **_of_the_device(), **threads}


def _of_the_device() -> Figures:
    """Bytes that this process had fetched from devices, and sent to them, as the system counts."""
    path = Path("/proc/self/io")
    if not path.exists():
        return {}
    counted = dict(line.split(": ") for line in path.read_text().splitlines())
    return {f"io.{name}": int(counted[name]) for name in ("read_bytes", "write_bytes")}


def _numbers(prefix: str, said: dict[str, Any]) -> Figures:
    found: Figures = {}
    for name, value in said.items():
        if isinstance(value, dict):
            found |= _numbers(f"{prefix}{name}.", value)
        elif isinstance(value, int | float):
            found[prefix + name] = value
    return found


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def train(config: str, directory: Path, overrides: list[str], prepare: Prepare = lambda _resources: None) -> None:
    """Serve one run of ``config``. ``prepare`` is given the open resources before the first step."""
    from pipeline.session import environment

    environment.pin()
    environment.keep_freed_memory()
    from pipeline.config import load
    from pipeline.session.plan import make_plan
    from pipeline.session.rundir import claim
    from pipeline.session.settings import Settings
    from pipeline.session.trainer import Trainer

    plan = make_plan(load([config], [f"run.dir={directory}", "run.progress_s=3600", *overrides], Settings))
    lookahead = next(stage.options.lookahead for stage in plan.graph.stages if stage.name == "prefetch")  # type: ignore[attr-defined]
    settle = lookahead + 2

    def hold(resources: Resources) -> None:
        prepare(resources)
        gate = Gate(resources, settle)
        resources.store.on_step(gate.at_fence)
        _say({"ready": {"threads": plan.settings.run.threads, "lookahead": lookahead, "settle_steps": settle}})
        gate.next(0)

    with claim(directory, seed=0, record={}, overwrite=False) as info:
        trainer = Trainer(plan, info)
        trainer.on_open.append(lambda _resources: environment.leave_start_to_itself())
        trainer.on_open.append(hold)
        trainer.train()


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
