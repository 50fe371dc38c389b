"""What a streamer has done, in numbers for the report."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class StreamCounters:
    """``add`` may be called by any thread; ``bytes_if_raw`` is set by whoever makes a cut."""

    rows_streamed: int = 0
    """Rows in committed cuts, snapshot cuts included."""
    tombstones: int = 0
    frames: int = 0
    """Frames handed to the transport, those of abandoned cuts included; and their bytes."""
    bytes_streamed: int = 0
    cuts: int = 0
    """Committed ordinary cuts."""
    snapshot_cuts: int = 0
    abandoned: int = 0
    """Cuts that lost their snapshot; their rows went into later cuts."""
    over_budget_bytes: int = 0
    """Best effort: what went although the budget was used up, as rows had waited long enough or the run ended; near enough."""
    bytes_if_raw: int = 0
    """What the distinct rows of each step would have been as float32, ids not counted; steps that wait are not in it yet."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, **amounts: int) -> None:
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def as_dict(self) -> dict[str, int]:
        """All counts, by name."""
        with self._lock:
            return {name: getattr(self, name) for name in self.__dataclass_fields__ if not name.startswith("_")}
