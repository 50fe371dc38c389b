"""How often a marker is sent: every so many items, or every so many seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass

UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
COUNTED = ("", "item", "items", "step", "steps", "batch", "batches")
TEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*")


@dataclass(frozen=True, slots=True)
class Every:
    """Exactly one of the two is set, and above 0."""

    items: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.items, self.seconds) if value is not None]
        if len(given) != 1 or given[0] <= 0:
            raise ValueError(f"every {self.items} items, {self.seconds} seconds: one of the two, above 0")

    @classmethod
    def parse(cls, given: Every | int | str | None) -> Every | None:
        """``100``, ``"100 steps"``, ``"25ms"``, ``"60s"``, ``"5 min"``. Raises ValueError for anything else."""
        if given is None or isinstance(given, Every):
            return given
        match = TEXT.fullmatch(str(given))
        if match is not None and match[2] in UNITS_S:
            return cls(seconds=float(match[1]) * UNITS_S[match[2]])
        if match is not None and match[2] in COUNTED and "." not in match[1]:
            return cls(items=int(match[1]))
        raise ValueError(f'{given!r} says no interval; "1000 steps" does, or "60s" (units {", ".join(UNITS_S)})')
