"""How much may be sent: a token bucket of bytes, and what a row takes of it. No clock of its own.

Rules.

1. Every second brings ``bytes_per_s``; what was not used of one second is not kept for later ones.
2. What had to go for its age is taken off too. Then only what is due goes until that is made up for, but for no longer than ``max_age_s``.
3. A row is taken to cost what it has on the wire before compression, times what recent cuts took of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.rows.codec import find_codec
from pipeline.stream.carried import carried_bytes
from pipeline.wire.frames import StreamedTable

KEPT_S = 1.0
RECENT = 0.2
"""What the newest cut weighs in the mean."""
ID_BYTES = 16
"""Of a row, beside its columns: id and version."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What a link carries."""

    bytes_per_s: float
    max_age_s: float
    """No row waits longer, as far as the link carries what has to go for it."""


class Budget:
    """Bytes that may be sent now: ``room``. Not for two threads at once."""

    def __init__(self, effort: Effort) -> None:
        self._effort = effort
        self.room = effort.bytes_per_s * KEPT_S
        self._last_ns: int | None = None

    def refill(self, now_ns: int) -> None:
        """Time has passed; where a clock was set back, none."""
        rate, last_ns = self._effort.bytes_per_s, self._last_ns
        if last_ns is not None:
            self.room = min(self.room + rate * max(now_ns - last_ns, 0) / 1e9, rate * KEPT_S)
        self._last_ns = now_ns

    def spend(self, num_bytes: int) -> None:
        self.room = max(self.room - num_bytes, -self._effort.bytes_per_s * self._effort.max_age_s)


class RowCosts:
    """Rule 3."""

    def __init__(self, tables: Sequence[StreamedTable]) -> None:
        self._plain = {
            table.spec.name: ID_BYTES + carried_bytes(table) + find_codec(table.codec).row_bytes(table.spec.dim)
            for table in tables
        }
        self._share = 1.0

    @property
    def by_table(self) -> dict[str, float]:
        """Bytes of a row, as far as one can know."""
        return {name: self._share * plain for name, plain in self._plain.items()}

    def learn(self, rows: Mapping[str, int], num_bytes: int) -> None:
        """So many rows, by table, took so many bytes. A cut of few rows is mostly frames, and teaches nothing."""
        plain = sum(count * self._plain[name] for name, count in rows.items())
        if sum(rows.values()) >= LEAST_ROWS:
            self._share += RECENT * (num_bytes / plain - self._share)


LEAST_ROWS = 64
