"""Writers, readers, a deleter, cleaners and listings on real threads over one tiny cache tier, against plain arrays.

Each row is filled with one byte, its version's lowest; versions of an id only grow, across deletes too. Pauses from a seed in
the tier below widen whatever window there is.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.store import CacheTier, DramTier, Tier
from tests.contracts.tier import SPECS
from tests.store.stress import Pauses, pausing

DEADLINE_S = 60.0
OWN_IDS = 60
KEPT_IDS = 45
"""Of its own ids, those that a writer never deletes come first."""
ROW_BYTES = SPECS[1].layout.row_bytes
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CachePlan:
    seed: int
    max_bytes: int
    rounds: int = 60
    writers: int = 2
    readers: int = 2
    clean_ahead: float = 0.3
    pause_s: float = 0.0004


class CacheStress:
    """Runs one plan; ``run`` raises the first thing that went wrong on any thread."""

    def __init__(self, plan: CachePlan, below: Tier | None = None) -> None:
        self.plan = plan
        self.below = below or pausing(DramTier, ("get", "put", "delete", "ids"), Pauses(plan.seed, plan.pause_s))
        self.tier = CacheTier(self.below, plan.max_bytes, "lru", plan.clean_ahead)
        self.tier.open(SPECS)
        count = plan.writers * OWN_IDS
        self.ids = np.arange(count, dtype=np.int64) - 7
        self.kept_n = np.arange(count) % OWN_IDS < KEPT_IDS
        self.put_n = np.zeros(count, dtype=np.int64)
        """The version that a put has returned from; each writer writes its own part."""
        self.held_n = np.zeros(count, dtype=np.bool_)
        self.done = threading.Event()
        self.errors: list[BaseException] = []

    def run(self) -> CacheTier:
        """Returns the tier, open."""
        writers = [self._thread(self._write, number) for number in range(self.plan.writers)]
        readers = [self._thread(self._read, number) for number in range(self.plan.readers)]
        others = [self._thread(self._list, 0), self._thread(self._clean, 0)]
        before = sys.getswitchinterval()
        sys.setswitchinterval(0.0002)
        try:
            for thread in (*writers, *readers, *others):
                thread.start()
            self._join(writers)
            self.done.set()
            self._join([*readers, *others])
        finally:
            sys.setswitchinterval(before)
        if self.errors:
            self.tier.close()
            raise self.errors[0]
        self._check_end()
        return self.tier

    def _thread(self, work: Callable[[int], None], number: int) -> threading.Thread:
        def guarded() -> None:
            try:
                work(number)
            except BaseException as error:
                self.errors.append(error)
                self.done.set()

        return threading.Thread(target=guarded, daemon=True)

    def _join(self, threads: list[threading.Thread]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
            if thread.is_alive():
                raise TimeoutError(f"a thread hangs (plan {self.plan})")

    def _write(self, number: int) -> None:
        draw = np.random.default_rng([self.plan.seed, number])
        own = np.arange(number * OWN_IDS, (number + 1) * OWN_IDS)
        for version in range(1, self.plan.rounds + 1):
            if self.done.is_set():
                return
            if draw.random() < 0.15:
                some = draw.choice(own[KEPT_IDS:], 5, replace=False)
                self.tier.delete("items", self.ids[some])
                self.held_n[some] = False
            else:
                some = draw.choice(own, int(draw.integers(1, 25)), replace=False)
                rows = np.full((some.shape[0], ROW_BYTES), version & 255, dtype=np.uint8)
                self.tier.put("items", self.ids[some], rows, np.full(some.shape[0], version))
                self.put_n[some], self.held_n[some] = version, True
            self._check_own(draw.permutation(own))

    def _check_own(self, own: Int64s) -> None:
        """Nobody else writes these rows: they are what the last put or delete left."""
        got = self.tier.get("items", self.ids[own])
        assert np.array_equal(got.found_n, self.held_n[own])
        assert np.array_equal(got.versions_n, np.where(got.found_n, self.put_n[own], 0))
        assert (got.rows_nb == (got.versions_n & 255)[:, None]).all()
        assert np.array_equal(self.tier.holds("items", self.ids[own]), got.found_n)

    def _read(self, number: int) -> None:
        draw = np.random.default_rng([self.plan.seed, 100 + number])
        seen_n = np.zeros(self.ids.shape[0], dtype=np.int64)
        while not self.done.is_set():
            asked = draw.permutation(self.ids.shape[0])
            before = self.put_n[asked]
            got = self.tier.get("items", self.ids[asked])
            assert (got.rows_nb == (got.versions_n & 255)[:, None]).all(), "a torn row"
            assert (got.found_n | (before == 0) | ~self.kept_n[asked]).all(), "a row was in neither place"
            assert (got.versions_n >= np.maximum(before, seen_n[asked]))[got.found_n].all(), "an old version"
            seen_n[asked] = np.maximum(seen_n[asked], got.versions_n)

    def _list(self, _number: int) -> None:
        while not self.done.is_set():
            before = self.ids[(self.put_n > 0) & self.kept_n]
            listed = self.tier.ids("items")
            assert np.unique(listed).shape == listed.shape, "an id was listed twice"
            assert np.isin(before, listed).all(), "an id was not listed"
            assert before.shape[0] <= self.tier.count("items") <= self.ids.shape[0]
            time.sleep(self.plan.pause_s)

    def _clean(self, _number: int) -> None:
        draw = np.random.default_rng([self.plan.seed, 200])
        while not self.done.is_set():
            if draw.random() < 0.1:
                self.tier.flush()
            else:
                self.tier.clean_ahead()
            time.sleep(self.plan.pause_s)

    def _check_end(self) -> None:
        """All is at rest: listings are exact, and after a flush everything is below."""
        held = self.ids[self.held_n]
        assert sorted(self.tier.ids("items").tolist()) == held.tolist()
        assert self.tier.count("items") == held.shape[0]
        self._check_own(np.arange(self.ids.shape[0]))
        self.tier.flush()
        got = self.below.get("items", self.ids)
        assert np.array_equal(got.found_n, self.held_n)
        assert np.array_equal(got.versions_n, np.where(self.held_n, self.put_n, 0))
        stats = self.tier.stats()
        assert stats["dirty_rows"] == 0
        assert stats["rows"] <= stats["max_rows"]
