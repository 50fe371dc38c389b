"""Named counts of one stage. They end in the report."""

from __future__ import annotations

import threading

WAITED_S = "waited_s"
"""Seconds a stage spent inside ``process`` waiting for others; they do not count as its service time."""

SKIPPED = "skipped"
"""What a stage left out of its own accord; it is added to the items that the runtime skipped."""


class StageCounters:
    """Counts by name; usable from any thread."""

    __slots__ = ("_counts", "_lock")

    def __init__(self) -> None:
        self._counts: dict[str, int | float] = {}
        self._lock = threading.Lock()

    def add(self, name: str, amount: int | float = 1) -> None:
        """Add ``amount`` to the count ``name``, which starts at 0."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + amount

    def snapshot(self) -> dict[str, int | float]:
        """A copy."""
        with self._lock:
            return dict(self._counts)
