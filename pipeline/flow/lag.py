"""How late the event loop serves a timer: the time that something else held it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from math import ceil, log2
from time import perf_counter

EVERY_S = 0.02
STEPS_PER_OCTAVE = 4
LEAST_MS = 0.01
NUM_BINS = 120


@dataclass(frozen=True, slots=True)
class LoopLag:
    """In milliseconds.

    ``p99_ms`` is rounded up to the next of four steps an octave; timers themselves are good to 1 ms.
    """

    p99_ms: float
    max_ms: float
    samples: int


class LagSampler:
    """Sets a timer again and again and notes how late it fires. Memory is bounded: a histogram."""

    def __init__(self) -> None:
        self._bins = [0] * NUM_BINS
        self._max_ms = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, on the running loop."""
        self._due = perf_counter() + EVERY_S
        self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._fire)

    def stop(self) -> None:
        """End; a timer that is overdue by now still counts."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            if perf_counter() > self._due:
                self._note()

    def lag(self) -> LoopLag:
        """A snapshot."""
        samples = sum(self._bins)
        seen = 0
        for number, count in enumerate(self._bins):
            seen += count
            if count and seen >= 0.99 * samples:
                return LoopLag(min(LEAST_MS * 2 ** (number / STEPS_PER_OCTAVE), self._max_ms), self._max_ms, samples)
        return LoopLag(0.0, 0.0, 0)

    def _fire(self) -> None:
        self._note()
        self.start()

    def _note(self) -> None:
        lag_ms = max(0.0, perf_counter() - self._due) * 1e3
        step = ceil(STEPS_PER_OCTAVE * log2(lag_ms / LEAST_MS)) if lag_ms > LEAST_MS else 0
        self._bins[min(step, NUM_BINS - 1)] += 1
        self._max_ms = max(self._max_ms, lag_ms)
