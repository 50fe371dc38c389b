"""One training run beside which rows are fetched in every other window: what a steady reader costs training."""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tools.bench.stream_windows import WARM_STEPS, WINDOW_STEPS, Windows, train_in_windows

if TYPE_CHECKING:
    from cuda.plan import SlotPlan
    from pipeline.session.resources import Resources

TABLE, ROWS_A_FETCH, PERIOD_S = "article", 5_000, 0.05
FETCHES_A_WINDOW = 16
"""For so many ids are drawn; a window that is longer asks for them again."""


class Reader:
    """Fetches random articles that training has seen, every ``PERIOD_S`` of a window that is on."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self.rows, self.on_s = 0, 0.0
        self.took_s: list[float] = []
        self.ran_s: list[float] = []
        """Of the processor, by the reader's own thread."""
        self._seen = np.empty(0, np.int64)
        self._asked: list[np.ndarray] = []
        self._random = np.random.default_rng(0)

    def start(self, resources: Resources) -> None:
        self._number = next(n for n, spec in enumerate(resources.store.specs) if spec.name == TABLE)
        resources.store.on_step(self._look)
        threading.Thread(target=self._read, args=(resources.store,), name="reader", daemon=True).start()

    def _look(self, step: int, plan: SlotPlan | None) -> None:
        """At a step's end: before any window, and when one that is on has begun and does not count yet."""
        begins = self._windows.on and (step - WARM_STEPS) % WINDOW_STEPS == 0
        if plan is not None and (step < WARM_STEPS or begins):
            first, end = plan.unique.table_start_t[self._number : self._number + 2]
            self._seen = np.union1d(self._seen, plan.unique.ids_u[first:end])
        if begins and step >= WARM_STEPS:
            self._asked = [self._random.choice(self._seen, ROWS_A_FETCH) for _ in range(FETCHES_A_WINDOW)]

    def _read(self, store: Any) -> None:
        last = time.monotonic()
        while True:
            time.sleep(max(last + PERIOD_S - time.monotonic(), 0))
            now, period = time.monotonic(), time.monotonic() - last
            last = now
            if self._windows.on and self._asked:
                ids_n, ran = self._asked[len(self.took_s) % FETCHES_A_WINDOW], time.thread_time()
                fetched = store.fetch_rows(TABLE, ids_n)
                self.took_s.append(time.monotonic() - now)
                self.ran_s.append(time.thread_time() - ran)
                self.rows += len(fetched.ids_n)
                self.on_s += period


def measure(config: str, directory: Path, overrides: list[str]) -> dict[str, Any]:
    """What ``train_in_windows`` returns, with the rows fetched, the time there was for it, and what a fetch took."""
    windows = Windows()
    reader = Reader(windows)
    taken = train_in_windows(windows, config, directory, overrides, reader.start)
    took, ran = (1e3 * statistics.median(seconds) for seconds in (reader.took_s, reader.ran_s))
    return {
        **taken,
        "rows": reader.rows,
        "on_s": reader.on_s,
        "ms_a_fetch": took,
        "ran_ms_a_fetch": ran,
        "seen": len(reader._seen),
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])))
