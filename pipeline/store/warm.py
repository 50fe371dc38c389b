"""Compile this room's kernels, and those of the rows it stores, before the first batch."""

from __future__ import annotations

import time

import numpy as np

from cuda.plan import RowPlaces
from pipeline.rows.initial import initial_rows
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.store import admission_kernels
from pipeline.store.dram import DramTier
from pipeline.store.policy import Lookahead
from pipeline.store.row_blocks import fetch
from pipeline.store.slot_kernels import all_held, leave_held
from pipeline.store.slots import SlotMachine


def warm_up() -> float:
    """Run each kernel once, compiling it or loading it from the cache on disk; returns the seconds it took."""
    started = time.perf_counter()
    for few in (SlotMachine.few, 0):  # by one thread, and by several
        machine = SlotMachine(2, Lookahead(), threads=2)  # one slot alone would have arrays of other types
        machine.few = few
        _use(machine)
    spec = TableSpec("t", RowLayout((Column("weight", "float32", 4, "weight"),)), Initializer("uniform"), 0)
    tier, ids = DramTier(), np.zeros(1, dtype=np.int64)
    tier.open([spec])
    tier.put("t", ids, initial_rows(spec, ids), ids)
    tier.get("t", ids)
    memory = np.zeros(8, dtype=np.int64)
    at = RowPlaces(*(np.array([memory.ctypes.data + offset]) for offset in (0, 56)))
    tier.get_rows(ids.astype(np.int32), ids, at)
    tier.put_rows(ids.astype(np.int32), ids, at)
    tier.close()
    cells = np.zeros((4, 2), dtype=np.uint32)
    admission_kernels.add(cells, ids, ids)
    admission_kernels.estimate(cells, ids, ids)
    fetch(ids, np.array([memory.ctypes.data]), 16, memory.nbytes, np.empty((1, 8), dtype=np.uint8))
    return time.perf_counter() - started


def _use(machine: SlotMachine) -> None:
    for step in (1, 2):  # the second one needs a victim
        decision = machine.decide(np.full(2, -1, dtype=np.int32), step)
        assert decision is not None
        machine.commit(decision)
        machine.loaded(decision.slots_m)
        all_held(decision.slots_u, machine.arrays.states_s, 0)
        leave_held(decision.slots_u.copy(), machine.arrays.states_s, 0)
        machine.unpin(decision.slots_u)
        machine.victims.refill(1, step)
        machine.victims.dirty(1, 1)
