"""Freshness: for every ended step, how long until lookups could return its rows. A histogram, bounded in memory.

Buckets grow by 2 % from one microsecond to about three hours, so a quantile is at most 2 % too high; the maximum is
exact.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_GROWTH = 1.02
_NUM_BUCKETS = 1200
_NS_PER_MS = 1e6
_NS_PER_US = 1e3


class Freshness:
    """Not for two threads at once.

    Steps that ended before ``since_ns`` are counted apart: the replica was not there yet.
    """

    def __init__(self, since_ns: int) -> None:
        self.since_ns = since_ns
        self.steps = 0
        self.earlier_steps = 0
        self.max_ms = math.nan
        self._counts = np.zeros(_NUM_BUCKETS, dtype=np.int64)

    def add(self, ended_ns_k: npt.NDArray[np.int64], visible_ns: int) -> None:
        """Steps that ended at these wall clocks became visible at ``visible_ns``."""
        live = ended_ns_k[ended_ns_k >= self.since_ns]
        self.earlier_steps += len(ended_ns_k) - len(live)
        if not len(live):
            return
        # Two processes read one clock, but a clock may be set back between the two readings.
        waited_us = np.maximum(visible_ns - live, 0) / _NS_PER_US
        buckets = np.ceil(np.log(np.maximum(waited_us, 1.0)) / math.log(_GROWTH)).astype(np.int64)
        np.add.at(self._counts, np.minimum(buckets, _NUM_BUCKETS - 1), 1)
        self.steps += len(live)
        self.max_ms = float(np.fmax(self.max_ms, waited_us.max() * _NS_PER_US / _NS_PER_MS))

    def quantile_ms(self, share: float) -> float:
        """The upper end of the bucket that holds the quantile, in milliseconds; NaN before the first step."""
        if not self.steps:
            return math.nan
        bucket = int(np.searchsorted(np.cumsum(self._counts), math.ceil(share * self.steps)))
        return min(_GROWTH**bucket * _NS_PER_US / _NS_PER_MS, self.max_ms)

    def as_dict(self) -> dict[str, float | int | None]:
        """``p50``, ``p99``, ``max`` in milliseconds (None before the first step), ``steps``, ``earlier_steps``."""
        known = self.steps > 0
        return {
            "p50": round(self.quantile_ms(0.50), 3) if known else None,
            "p99": round(self.quantile_ms(0.99), 3) if known else None,
            "max": round(self.max_ms, 3) if known else None,
            "steps": self.steps,
            "earlier_steps": self.earlier_steps,
        }
