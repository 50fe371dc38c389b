"""Which run this is: what stages may want to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunInfo:
    """``generation`` counts the processes that trained this run; a new one has a higher number."""

    run_id: str
    dir: Path
    seed: int
    generation: int
