"""Where the processors went: the time that each thread of this process ran, and the time it stood ready while others did.

As Linux counts it (``schedstat``), by the name of the Python thread; ``kernels`` are threads that Python did not start, which share the
loops of compiled kernels and of torch. Elsewhere nothing is known.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path

Times = dict[str, float]
"""Seconds, as ``NAME.ran`` and ``NAME.waited``."""
KERNELS = "kernels"
LEAST_MS = 0.05
"""A thread that ran less in a step is not told of."""


def thread_times() -> Times:
    """So far, threads of one name together: a number or a path that ends the name is left out."""
    names = {thread.native_id: _short(thread.name) for thread in threading.enumerate()}
    times: Times = {}
    for task in Path("/proc/self/task").glob("*"):
        try:
            ran, waited, _ = (task / "schedstat").read_text().split()
        except OSError:  # ended meanwhile
            continue
        name = names.get(int(task.name), KERNELS)
        for what, ns in (("ran", ran), ("waited", waited)):
            key = f"{name}.{what}"
            times[key] = times.get(key, 0.0) + int(ns) / 1e9
    return times


def _short(name: str) -> str:
    return re.sub(r"([-_]\d+|-/.*)$", "", name.removeprefix("lane-"))


def per_step(times: Mapping[str, float], seconds: float, steps: int) -> str:
    """For people: what each thread ran in a step, and waited for a processor in brackets, the busiest first. The steps took
    ``seconds`` in all.
    """
    ms = {key: seconds * 1e3 / steps for key, seconds in times.items()}
    ran = {key.removesuffix(".ran"): value for key, value in ms.items() if key.endswith(".ran")}
    told = sorted((name for name, value in ran.items() if value >= LEAST_MS), key=lambda name: -ran[name])
    parts = [f"{name} {ran[name]:.2f} ({ms.get(f'{name}.waited', 0.0):.2f})" for name in told]
    return ", ".join(parts) + f"; in all {sum(ran.values()):.1f} in a step of {seconds * 1e3 / steps:.1f}"
