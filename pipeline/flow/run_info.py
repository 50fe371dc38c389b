"""Which run this is: what stages may want to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ResumedFrom:
    """Where a resumed run began. ``changed_after(step)`` reads the checkpoint: ids, by table, of rows updated after ``step``."""

    step: int
    changed_after: Callable[[int], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Fork:
    """From ``step`` on, generation ``generation`` computed something else than the ones before it."""

    generation: int
    step: int


@dataclass(frozen=True, slots=True)
class RunInfo:
    """``generation`` counts the processes that trained this run; a new one has a higher number."""

    run_id: str
    dir: Path
    seed: int
    generation: int
    resumed: ResumedFrom | None = None
    """None for a run that begins."""
    forks: tuple[Fork, ...] = ()
    """All of the run's life, the oldest first."""
