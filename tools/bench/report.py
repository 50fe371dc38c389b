"""One line of a benchmark table: what was measured, beside its peer and its goal."""

from __future__ import annotations

from collections.abc import Mapping
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
