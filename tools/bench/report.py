"""One line of a benchmark table: what was measured, beside its peer and its goal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BenchRow:
    """``measured`` and ``peer_measured`` are text with their unit, already rounded; ``met`` is None where there is no goal."""

    bench: str
    what: str
    measured: str
    peer: str = "-"
    peer_measured: str = "-"
    goal: str = "-"
    met: bool | None = None
    knobs: Mapping[str, object] = field(default_factory=dict)


def step_times(ms: Sequence[float]) -> str:
    """A step's median, and between what runs it lay."""
    return f"{statistics.median(ms):.2f} ms a step ({min(ms):.2f} to {max(ms):.2f})"
