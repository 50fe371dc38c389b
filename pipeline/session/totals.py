"""What a run adds up at each fence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cuda.plan import SlotPlan

FLOAT_BYTES = 4


@dataclass
class Totals:
    """Counts steps, samples and updated rows; ``dims`` are the tables' dims in order."""

    dims: Sequence[int]
    steps: int = 0
    samples: int = 0
    rows_updated: int = 0
    most_rows: int = 0
    """Distinct rows of the largest step: the least L1 this run could have had."""

    _rows_t: npt.NDArray[np.int64] | int = 0
    """Distinct rows of each step, added up by table."""
    _first: tuple[float, int] | None = None
    _last: tuple[float, int] | None = None

    @property
    def bytes_if_raw(self) -> int:
        """Bytes if the distinct rows of each step were sent as fp32."""
        return int(np.sum(self._rows_t * np.asarray(self.dims, dtype=np.int64))) * FLOAT_BYTES

    @property
    def samples_per_s(self) -> float:
        """From the end of the first step to the end of the last: what start-up, drain and evaluation take does not count."""
        if self._first is None or self._last is None or self._last[0] == self._first[0]:
            return 0.0
        return (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])

    def at_fence(self, _step: int, plan: SlotPlan | None) -> None:
        """A step listener of the store: counts only."""
        self.steps += 1
        if plan is not None:
            self._count(plan)
        self._last = (time.monotonic(), self.samples)
        self._first = self._first or self._last

    def _count(self, plan: SlotPlan) -> None:
        self.samples += plan.batch.num_samples
        self.rows_updated += plan.unique.count
        self.most_rows = max(self.most_rows, plan.unique.count)
        starts_t = plan.unique.table_start_t
        self._rows_t = self._rows_t + (starts_t[1:] - starts_t[:-1])
