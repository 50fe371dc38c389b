"""The default rows of tables with an admission: one each, in slots of L1 behind those that batches get."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cuda.backend import Backend
from cuda.plan import Int32s
from pipeline.rows.initial import initial_rows
from pipeline.rows.spec import TableSpec


def default_slots(specs: Sequence[TableSpec], first: int) -> Int32s:
    """The slot of each table's default row, from ``first`` on; -1 where it has none."""
    slots_t = np.full(len(specs), -1, dtype=np.int32)
    having = [table for table, spec in enumerate(specs) if spec.default is not None]
    slots_t[having] = np.arange(first, first + len(having))
    return slots_t


def write_default_rows(specs: Sequence[TableSpec], slots_t: Int32s, backend: Backend) -> None:
    """Into an open backend."""
    for spec, slot in zip(specs, slots_t.tolist(), strict=True):
        if slot >= 0:
            row = initial_rows(spec.absent, np.zeros(1, dtype=np.int64))
            backend.write_rows(np.array([slot], dtype=np.int32), row, np.zeros(1, dtype=np.int64))
