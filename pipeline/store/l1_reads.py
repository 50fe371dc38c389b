"""Reading what is in L1, and which rows are: for snapshots, cuts, fetches and checkpoints. The base of ``Residency``, whose locks it has.

Nothing here changes where a row is. Rows are copied under the residency lock, so they stay where they are found; that a step may write one
meanwhile, whoever copies has to know.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from cuda.backend import Backend
from cuda.plan import Int32s, Int64s
from pipeline.rows.room import MakeRoom
from pipeline.rows.spec import TableSpec
from pipeline.store.below import Below
from pipeline.store.slot_kernels import all_held, leave_held
from pipeline.store.slots import CLEAN, DIRTY, SlotMachine
from pipeline.store.tier import RowBytes

SCAN_SLOTS: Final = 65_536
"""Slots looked at under one hold of the locks when rows are listed."""
FEW_ROWS: Final = 4096
"""So many the backend finds on the calling thread."""
NONE_AWAY: Final = np.empty(0, dtype=np.int64)


class L1Reads:
    """See the module docstring. ``specs`` name the tables in the backend's order."""

    def __init__(self, specs: Sequence[TableSpec], backend: Backend, machine: SlotMachine, below: Below) -> None:
        self.specs, self.backend, self.machine, self.below = specs, backend, machine, below
        self.l1_rows = machine.arrays.num_slots
        self.tables = {spec.name: number for number, spec in enumerate(specs)}
        self.residency, self._slots = threading.Lock(), threading.Lock()

    def copy_rows(self, tables_n: Int32s, ids_n: Int64s) -> tuple[RowBytes, Int64s]:
        """Copies of rows as wide as the pool's, and their versions, from wherever they are; 0, made anew, where they are nowhere.

        First from L1, then what is not there from below: so a row that leaves L1 meanwhile is met there.
        """
        here, rows_nb, versions_n = self.copy_resident(tables_n, ids_n)
        if here is None:
            return rows_nb, versions_n
        rows, versions = rows_nb, versions_n
        rows_nb = np.empty((ids_n.shape[0], rows.shape[1]), dtype=np.uint8)
        versions_n = np.empty(ids_n.shape[0], dtype=np.int64)
        rows_nb[here], versions_n[here] = rows, versions
        away_n = np.flatnonzero(~here)
        for number in np.unique(tables_n[away_n]).tolist():
            away = away_n[tables_n[away_n] == number]
            below, versions_n[away], _ = self.below.read(self.specs[number], ids_n[away])
            rows_nb[away, : below.shape[1]] = below
        return rows_nb, versions_n

    def copy_resident(self, tables_n: Int32s, ids_n: Int64s) -> tuple[npt.NDArray[np.bool_] | None, RowBytes, Int64s]:
        """Copy those rows that are in L1: (which of ``ids_n`` they are, packed rows, versions); None says that all are.

        A row that a step writes meanwhile may come out torn. A row still on its way into L1 does not count as there.
        """
        with self.residency:
            slots_n = self.backend.locate(tables_n, ids_n)
            with self._slots:
                # Slot -1 looks at the last slot's state, which the second condition then overrules.
                here = self.machine.arrays.states_s[slots_n] >= CLEAN
            here &= slots_n >= 0
            if bool(here.all()):
                return None, *self.backend.read_rows(slots_n)
            return here, *self.backend.read_rows(slots_n[here])

    def copy_few(
        self, table: int, ids_n: Int64s, parts: tuple[RowBytes, RowBytes], versions_n: Int64s, patience_s: float
    ) -> Int64s | None:
        """Copy the rows of one table that are in L1 to their places in both arrays of ``parts``, as ``Backend.read_rows_into`` does;
        returns the positions of the others, of which nothing is written. None: L1 was busy for ``patience_s`` and nothing was copied.

        By the calling thread alone. As with ``copy_resident``, a row that a step writes meanwhile may come out torn.
        """
        tables_n, slots_n = np.full(ids_n.shape[0], table, dtype=np.int32), np.empty(ids_n.shape[0], dtype=np.int32)
        if not self.residency.acquire(timeout=patience_s):
            return None
        try:
            for start in range(0, ids_n.shape[0], FEW_ROWS):
                some = slice(start, start + FEW_ROWS)
                slots_n[some] = self.backend.locate(tables_n[some], ids_n[some])
            with self._slots:
                num_away = leave_held(slots_n, self.machine.arrays.states_s, CLEAN)
            self.backend.read_rows_into(slots_n, *parts, versions_n)
        finally:
            self.residency.release()
        return np.flatnonzero(slots_n < 0) if num_away else NONE_AWAY

    def encode_resident(
        self,
        groups: tuple[Int64s, Int64s],
        codecs_t: Sequence[str],
        versions: tuple[int, int],
        make_room: MakeRoom,
    ) -> tuple[int, int] | None:
        """``Backend.find_distinct`` and ``encode_distinct`` of rows that are all in L1; None where one is not, or there is no room.

        As with ``copy_resident``, a row that a step writes meanwhile may come out torn.
        """
        with self.residency:
            found = self.backend.find_distinct(*groups)
            if found is None:
                return None
            slots_n, counts_t = found
            with self._slots:
                here = all_held(slots_n, self.machine.arrays.states_s, CLEAN)
            room = make_room(counts_t) if here else None
            return None if room is None else self.backend.encode_distinct(slots_n, counts_t, codecs_t, versions, room)

    def unsaved(self, since: int) -> dict[str, Int64s]:
        """Ids by table: ``unsaved_pairs`` of all slots. A row that leaves meanwhile is below by then."""
        pairs = [self.unsaved_pairs(at, at + SCAN_SLOTS, since) for at in range(0, self.l1_rows, SCAN_SLOTS)]
        tables, ids = (np.concatenate(part) for part in zip(*pairs, strict=True))
        return {name: ids[tables == number] for name, number in self.tables.items()}

    def unsaved_pairs(self, start: int, stop: int, since: int) -> tuple[Int32s, Int64s]:
        """(tables, ids) of the rows in slots start..stop that changed after version ``since`` and may not be below as they are here.

        A row counts as DIRTY when its batch is released: until then it is pinned.
        """
        with self.residency:
            with self._slots:
                states_s, pins_s = self.machine.arrays.states_s[start:stop], self.machine.arrays.pins_s[start:stop]
                held = np.flatnonzero((states_s == DIRTY) | ((states_s >= CLEAN) & (pins_s > 0)))
            slots = (held + start).astype(np.int32)
            slots = slots[self.backend.read_versions(slots) > since]
            return self.backend.pairs(slots)

    def updated_pairs(self, start: int, stop: int) -> tuple[Int32s, Int64s]:
        """(tables, ids) of the rows in slots start..stop that were ever updated."""
        with self.residency:
            with self._slots:
                held = np.flatnonzero(self.machine.arrays.states_s[start:stop] >= CLEAN)
            slots = (held + start).astype(np.int32)
            slots = slots[self.backend.read_versions(slots) > 0]
            return self.backend.pairs(slots)
