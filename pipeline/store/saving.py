"""Saving to a checkpoint what changed since the last one and is not in its log yet: the store's part of a checkpoint."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.store.snapshot import Snapshot
from pipeline.store.store import Store
from pipeline.store.tier import save_past

CHUNK_ROWS: Final = 65_536


class TakesRows(Protocol):
    def save(self, table: str, ids_n: Any, rows_nb: npt.NDArray[np.uint8], versions_n: npt.NDArray[np.int64]) -> None:
        """Take rows as they stood at the snapshot's step, ids distinct; each comes once."""


def save_changed(store: Store, snapshot: Snapshot, into: TakesRows, since: int) -> int:
    """Hand ``into`` all rows that changed after packed version ``since`` up to the snapshot's step, but for those that a tier names to
    the checkpoint itself. Returns how many.

    The snapshot is of all rows and was taken at one fence with the checkpoint's mark. Table by table, ids ascending. Blocks.
    """
    layouts, saved = {spec.name: spec.layout for spec in store.specs}, 0
    for name, ids in snapshot.unsaved(since).items():
        for start in range(0, ids.shape[0], CHUNK_ROWS):
            chunk = ids[start : start + CHUNK_ROWS]
            rows = snapshot.read(name, chunk)
            changed_n = rows.versions_n > since
            rows_nb = np.ascontiguousarray(rows.rows_nb[changed_n, : layouts[name].row_bytes])
            ids_n, versions_n = chunk[changed_n], rows.versions_n[changed_n]
            save_past(store.tier, name, ids_n, versions_n, partial(into.save, name, ids_n, rows_nb, versions_n))
            saved += rows_nb.shape[0]
    return saved
