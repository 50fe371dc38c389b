"""Which rows are in L1: reserving, loading, releasing and cleaning, on the slot machine, the backend and the tier
below.

Two locks. ``residency`` is held while rows come to own slots or leave them: a reservation (decision, write-back,
binding), a chunk of cleaning ahead, a snapshot's copy out of L1. ``_slots`` is held for each change of states and
pins, and nothing blocks under it. Pins rise only under ``residency``; so a slot seen without pins there stays
without, and nobody writes its row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from cuda.backend import Backend
from cuda.plan import BatchIds, Int32s, SlotPlan, UniqueIds
from pipeline.rows.spec import TableSpec
from pipeline.store.below import Below
from pipeline.store.counters import StoreCounters
from pipeline.store.errors import L1TooSmall, OutOfStep
from pipeline.store.hooks import Hooks
from pipeline.store.l1_reads import L1Reads
from pipeline.store.policy import Policy
from pipeline.store.reservation import Reservation
from pipeline.store.slots import LOADING, Decision, SlotMachine
from pipeline.store.tier import Tier

CLEAN_CHUNK_ROWS: Final = 4096
"""Most rows written back under one hold of the residency lock when cleaning ahead."""
CLEAN_CHUNKS: Final = 4
"""Most such chunks one call of ``clean_ahead`` writes."""
SCAN_WINDOWS: Final = 4
"""A scan for rows to clean finds so many times what is kept clean, so that not every step scans."""
MOST_EXPECTED: Final = 1024
"""Queued batches that are kept as hints; the oldest are forgotten first."""


class Residency(L1Reads):
    """See the module docstring. ``specs`` name the tables in the backend's order."""

    def __init__(
        self,
        specs: Sequence[TableSpec],
        backend: Backend,
        tier: Tier,
        l1_rows: int,
        policy: Policy,
        clean_ahead: float,
        *,
        forgets: bool = False,
    ) -> None:
        """``forgets``: whether rows may end (``ending``)."""
        machine = SlotMachine(l1_rows, policy, self._refresh_hints, backend.threads)
        super().__init__(specs, backend, machine, Below(specs, backend, tier, forgets))
        self.tier, self.forgets = tier, forgets
        self.counters = StoreCounters()
        self.hooks = Hooks(specs, backend)
        self._window = int(l1_rows * clean_ahead)
        self._expected: deque[tuple[int, UniqueIds]] = deque(maxlen=MOST_EXPECTED)
        self._unloaded: dict[int, Reservation] = {}
        """By step: those whose misses have not come."""
        self.in_flight = 0
        """Reservations that were not released yet."""
        self.began = False
        """Whether there was a reservation."""
        self._hears = policy.needs_expect and not self.below.moves
        """Whether queued batches are listened to. Where a miss is a copy in memory, finding their rows costs more than it saves."""

    def expect(self, step: int, unique: UniqueIds) -> None:
        """A queued batch will need these rows in ``step``."""
        if not self._hears:
            return
        with self.residency:
            self._expected.append((step, unique))
            if self.machine.num_free and not len(self.machine.victims):
                return  # no row has to leave yet, and before the first does all hints are looked at
            self.machine.expect(self.backend.locate(unique.tables_u, unique.ids_u), step)

    def try_reserve(self, step: int | None, batch: BatchIds, unique: UniqueIds) -> Reservation | None:
        """``step``: its number; None for rows that no batch asks for, which are entered under the last number and take none."""
        if unique.count > self.l1_rows:
            raise L1TooSmall(unique.count, self.l1_rows, step or self.machine.now)
        with self.residency:
            decision = self._decide(step, unique)
            if decision is None:
                self.counters.no_room += 1
                return None
            if not self.hooks.before_evict or decision.num_free == decision.slots_m.shape[0]:
                return self._take(decision, batch, unique)
            leaving = self.hooks.leaving(decision.slots_m[decision.num_free :])
        # Only here do rows leave and pins rise: the victims stay held, and nobody writes them, until they are taken.
        self.hooks.run_before_evict(decision.step, leaving)
        with self.residency:
            return self._take(self.machine.renewed(decision), batch, unique)

    def _decide(self, step: int | None, unique: UniqueIds) -> Decision | None:
        """Which slots a batch gets. The victims among them are below by then."""
        if step is None:
            step = self.machine.now
        elif step <= self.machine.now:
            raise OutOfStep("the reservation", step, f"one above {self.machine.now}, the last one made")
        decision = self.machine.decide(self.backend.locate(unique.tables_u, unique.ids_u), step)
        if decision is not None and decision.dirty_d.shape[0]:
            self._write_back(decision.dirty_d)
        return decision

    def _take(self, decision: Decision, batch: BatchIds, unique: UniqueIds) -> Reservation:
        """Bind the slots of the misses and pin all of the batch's."""
        step, misses_m, slots_m = decision.step, decision.misses_m, decision.slots_m
        if misses_m.shape[0]:
            self.backend.admit(slots_m, unique.tables_u[misses_m], unique.ids_u[misses_m])
        plan = SlotPlan(batch, unique, decision.slots_u)
        reservation = Reservation(step, plan, misses_m, slots_m, not misses_m.shape[0])
        with self._slots:
            self.machine.commit(decision)
            self.in_flight += 1
            self.began = True
            if misses_m.shape[0]:
                self._unloaded[step] = reservation
        self.counters.hits += unique.count - int(misses_m.shape[0])
        self.counters.misses += int(misses_m.shape[0])
        self.counters.evictions += int(slots_m.shape[0]) - decision.num_free
        return reservation

    def _refresh_hints(self) -> None:
        """Before a scan for victims: find the rows of queued batches, those too that came in after they were
        announced.
        """
        while self._expected and self._expected[0][0] <= self.machine.now:
            self._expected.popleft()
        for queued, unique in reversed(self._expected):
            self.machine.expect(self.backend.locate(unique.tables_u, unique.ids_u), queued)

    def read_misses(self, reservation: Reservation) -> None:
        """Fill the slots of the misses from the tier, or with initial rows. Does nothing the second time."""
        with reservation.lock:
            if reservation.loaded:
                return
            initial = self.below.bring_in(reservation)
            with self._slots:
                self.machine.loaded(reservation.slots_m)
                self._unloaded.pop(reservation.step, None)
                self.counters.initial_rows += initial
            reservation.loaded = True

    def close(self) -> None:
        """End the threads that read. May be called twice."""
        self.below.close()

    def check_readable(self, reservation: Reservation, action: str = "gather") -> None:
        """Raise RuntimeError unless all its rows are there: its own misses and those of earlier batches, which it may
        share.
        """
        reservation.check_held(action)
        if not self._unloaded:
            return
        with self._slots:
            waiting = [step for step in self._unloaded if step <= reservation.step]
        if waiting:
            raise RuntimeError(
                f"{action} of step {reservation.step}: the rows of step {min(waiting)} were not loaded yet"
            )

    def mark_written(self, reservation: Reservation) -> None:
        """The rows are about to be written. They count as DIRTY when the batch is released: its pins keep them till
        then.
        """
        self.check_readable(reservation, "update")
        reservation.written = True

    def release(self, reservation: Reservation) -> bool:
        """Unpin; loads first if that was never done, as later batches may count on these rows. Whether a slot became
        free of pins.
        """
        self.read_misses(reservation)
        with self._slots:
            reservation.check_held("release")
            reservation.released = True
            self.in_flight -= 1
            return self.machine.unpin(reservation.plan.slots_u, reservation.written) > 0

    def clean_ahead(self) -> int:
        """Write back dirty rows that are next to leave; returns how many."""
        cleaned = 0
        for _ in range(CLEAN_CHUNKS):
            with self.residency:
                dirty = self._next_dirty()
                if not dirty.shape[0]:
                    break
                self._write_back(dirty)
                self.counters.cleaned_ahead += int(dirty.shape[0])
            cleaned += int(dirty.shape[0])
        return cleaned

    def _next_dirty(self) -> Int32s:
        machine = self.machine
        window = self._window - machine.num_free
        if window <= 0:
            return np.empty(0, dtype=np.int32)
        if len(machine.victims) < min(window, machine.arrays.num_slots - machine.num_pinned):
            machine.victims.refill(SCAN_WINDOWS * window, machine.now)
        return machine.victims.dirty(window, CLEAN_CHUNK_ROWS)

    def _write_back(self, slots_m: Int32s) -> None:
        """Put dirty rows without pins into the tier, then call them clean. Under the residency lock."""
        self.below.put_back(slots_m)
        with self._slots:
            self.machine.cleaned(slots_m)
        self.counters.write_backs += int(slots_m.shape[0])

    def on_their_way(self, slots_n: Int32s) -> list[Reservation]:
        """For whom rows are coming into some of these slots. Under the residency lock."""
        with self._slots:
            coming = slots_n[self.machine.arrays.states_s[slots_n] == LOADING]
            waiting = list(self._unloaded.values()) if coming.shape[0] else []
        return [one for one in waiting if np.isin(one.slots_m, coming).any()]
