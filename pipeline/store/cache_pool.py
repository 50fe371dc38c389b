"""The rows that a cache tier holds: the slot machine over a pool in host memory, behind one lock.

Rules.

1. A slot is FREE, CLEAN (the tier below holds the same bits) or DIRTY (it does not). LOADING and pins come and go
   inside one ``try_put``.
2. Only a CLEAN row leaves. A DIRTY one becomes CLEAN when the tier below has what ``take_dirty`` copied of it, unless it
   was put again since: ``last_use_s``, the number of the last put, tells.
3. The lock is held for a bounded number of rows, never while anything is asked of another tier; and for a scan of all
   slots, when a put finds no victim left. ``next_dirty`` scans earlier, without the lock.

A row's use is its put, so ``lru`` lets the row leave that left L1 longest ago. Reading is no use: who reads a row takes
it into L1, or is a snapshot that reads all. One pool for all tables, each row as wide as the widest: memory goes
to the table that needs it, as in L1, where shares per table would have to be guessed; narrow rows waste the difference.

Legend: n rows of one call, U rows of one put, D dirty rows, S slots.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from cuda.errors import PoolTooLarge
from cuda.host import HostBackend
from cuda.plan import Int32s, Int64s
from pipeline.rows.spec import TableSpec
from pipeline.store.errors import CacheTooLarge
from pipeline.store.policy import Policy
from pipeline.store.slots import DIRTY, SlotMachine
from pipeline.store.tier import Bools, RowBytes

SCAN_WINDOWS: Final = 4
"""A scan for rows to clean finds so many times what is kept clean, so that not every put scans."""
SCAN_SLOTS: Final = 1 << 20
"""Slots looked at under one hold of the lock when dirty rows are listed."""
_NONE: Final = np.empty(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class DirtyRows:
    """Copies of dirty rows of one table, and which put each of them was of."""

    table: int
    slots_d: Int32s
    puts_d: Int64s
    ids_d: Int64s
    rows_db: RowBytes
    versions_d: Int64s


class CachePool:
    """See the module docstring. ``window``: rows, next to leave, that are to be clean."""

    def __init__(self, specs: Sequence[TableSpec], num_slots: int, policy: Policy, window: int) -> None:
        self.num_slots, self.window = num_slots, window
        self._backend = HostBackend(1)
        try:
            self._backend.open(specs, num_slots)
            self.machine = SlotMachine(num_slots, policy)
        except PoolTooLarge as error:
            raise CacheTooLarge(num_slots, error.rows_that_fit) from error
        self.row_bytes, self.num_dirty = self._backend.row_bytes, 0
        self.lock = threading.Lock()

    @property
    def num_rows(self) -> int:
        return self.num_slots - self.machine.num_free

    def copy(self, table: int, ids_n: Int64s) -> tuple[Int64s, RowBytes, Int64s]:
        """(which of ``ids_n`` are here, their rows, their versions), as the last put left them. Rows may be wider than the
        table's.
        """
        with self.lock:
            slots_n = self._locate(table, ids_n)
            here = np.flatnonzero(slots_n >= 0)
            return here, *self._backend.read_rows(slots_n[here])

    def try_put(self, table: int, ids_u: Int64s, rows_ub: RowBytes, versions_u: Int64s) -> Int32s:
        """Take the rows, all or none. Returns the dirty rows that have to be clean first; none of them: it is done."""
        with self.lock:
            machine = self.machine
            decision = machine.decide(self._locate(table, ids_u), machine.now + 1)
            assert decision is not None, "nothing is pinned, and a put has at most as many rows as there are slots"
            if decision.dirty_d.shape[0]:
                return decision.dirty_d
            ids_m = ids_u[decision.misses_m]
            self._backend.admit(decision.slots_m, np.full(ids_m.shape[0], table, dtype=np.int32), ids_m)
            machine.commit(decision)
            self._backend.write_rows(decision.slots_u, rows_ub, versions_u)
            machine.loaded(decision.slots_m)
            self.num_dirty += int(np.count_nonzero(machine.arrays.states_s[decision.slots_u] != DIRTY))
            machine.unpin(decision.slots_u, written=True)
        return _NONE

    def next_dirty(self, limit: int) -> Int32s:
        """Dirty rows among those that are next to leave, at most ``limit``. Scans for them without the lock."""
        machine = self.machine
        window = self.window - machine.num_free
        if window <= 0 or not self.num_dirty:
            return _NONE
        queue_q = None
        with self.lock:  # puts move the queue's head and replace it
            few_known = len(machine.victims) < min(window, self.num_rows)
        if few_known:
            queue_q = machine.victims.scan(SCAN_WINDOWS * window, machine.now)
        with self.lock:
            if queue_q is not None:
                machine.victims.install(queue_q)
            return machine.victims.dirty(window, limit)

    def take_dirty(self, slots_d: Int32s) -> list[DirtyRows]:
        """Copy those of these rows that are still dirty, by table."""
        with self.lock:
            slots_d = slots_d[self.machine.arrays.states_s[slots_d] == DIRTY]
            tables_d, ids_d = self._backend.pairs(slots_d)
            order = np.argsort(tables_d, kind="stable")
            slots_d, tables_d, ids_d = slots_d[order], tables_d[order], ids_d[order]
            rows_db, versions_d = self._backend.read_rows(slots_d)
            puts_d = self.machine.arrays.last_use_s[slots_d]
        bounds = np.flatnonzero(np.diff(tables_d, prepend=-1, append=-1)).tolist()
        parts = [slice(start, stop) for start, stop in pairwise(bounds)]
        return [
            DirtyRows(int(tables_d[p.start]), slots_d[p], puts_d[p], ids_d[p], rows_db[p], versions_d[p]) for p in parts
        ]

    def cleaned(self, rows: DirtyRows) -> None:
        """The tier below has these rows: those that were not put again are clean."""
        with self.lock:
            arrays = self.machine.arrays
            same_d = (arrays.states_s[rows.slots_d] == DIRTY) & (arrays.last_use_s[rows.slots_d] == rows.puts_d)
            slots = rows.slots_d[same_d]
            self.machine.cleaned(slots)
            self.num_dirty -= int(slots.shape[0])

    def saved(self, table: int, ids_n: Int64s, versions_n: Int64s) -> None:
        """The tier below has these versions: rows that are not younger here are clean."""
        with self.lock:
            slots_n = self._locate(table, ids_n)
            slots_n, versions_n = slots_n[slots_n >= 0], versions_n[slots_n >= 0]
            old_n = self._backend.read_versions(slots_n) <= versions_n
            slots = slots_n[old_n & (self.machine.arrays.states_s[slots_n] == DIRTY)]
            self.machine.cleaned(slots)
            self.num_dirty -= int(slots.shape[0])

    def drop(self, table: int, ids_n: Int64s) -> None:
        """Forget rows, dirty ones too; ids distinct, absent ones are passed over."""
        with self.lock:
            slots = self._locate(table, ids_n)
            slots = slots[slots >= 0]
            dirty = slots[self.machine.arrays.states_s[slots] == DIRTY]
            self.machine.cleaned(dirty)
            self.num_dirty -= int(dirty.shape[0])
            self._backend.forget(slots)
            self.machine.give_back(slots)

    def holds(self, table: int, ids_n: Int64s) -> Bools:
        with self.lock:
            return self._locate(table, ids_n) >= 0

    def dirty_slots(self) -> Int32s:
        """Slots that were dirty at the call, and some that became so meanwhile; complete while nobody calls ``cleaned``."""
        found, states_s = [_NONE], self.machine.arrays.states_s
        for start in range(0, self.num_slots, SCAN_SLOTS):
            with self.lock:
                slots = np.flatnonzero(states_s[start : start + SCAN_SLOTS] == DIRTY)
            found.append((slots + start).astype(np.int32))
        return np.concatenate(found)

    def dirty_ids(self, table: int) -> Int64s:
        """Ids of the table's dirty rows, under the conditions of ``dirty_slots``."""
        slots_d = self.dirty_slots()
        with self.lock:
            tables_d, ids_d = self._backend.pairs(slots_d)
        own: Int64s = ids_d[tables_d == table]
        return own

    def _locate(self, table: int, ids_n: Int64s) -> Int32s:
        return self._backend.locate(np.full(ids_n.shape[0], table, dtype=np.int32), ids_n)

    def close(self) -> None:
        with self.lock:
            self._backend.close()
