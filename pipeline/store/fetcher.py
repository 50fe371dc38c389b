"""How rows on demand are read: a few are copied in the fetch's own turn at the fence, many behind it through a snapshot.

In a turn nobody writes, so rows need not be kept from being overwritten: no mark, no index of ids, no save by the next steps. They may
move between L1 and the tier, and are read in the order that a snapshot reads them in, for its reasons (see the room's README).
A turn that takes long is time that a step waits. So it is for few rows, not for rows that may be on a disk, not while L1 is busy, and not
while a step waits already, as it does where many fetch at once; a snapshot reads what the turn does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.rows.initial import initial_rows
from pipeline.rows.version import MAX_STEP, pack_version
from pipeline.store.fetched import FetchedRows, RowParts, gathered, unpacked
from pipeline.store.snapshot import Snapshot

if TYPE_CHECKING:
    from cuda.plan import Int64s
    from pipeline.store.fence import Fence
    from pipeline.store.residency import Residency

MOST_ROWS: Final = 8192
MOST_BYTES: Final = 4 << 20
"""Of one fetch in one turn: one or two milliseconds."""
PATIENCE_S: Final = 0.002
"""How long a turn may last because a batch is getting its rows."""
NOT_YET: Final = -1
"""The version of a row that was not read."""


class Fetcher:
    """``freeze`` is that of the store. From any thread; ``fetch`` blocks."""

    def __init__(self, residency: Residency, fence: Fence, freeze: Callable[..., Snapshot], generation: int) -> None:
        self._residency, self._fence, self._freeze, self._generation = residency, fence, freeze, generation

    def fetch(self, table: int, ids_n: Int64s, states: bool) -> FetchedRows:
        """Rows of one table as the last step that had ended left them, in the order asked. Raises SnapshotAbandoned."""
        spec = self._residency.specs[table]
        count = ids_n.shape[0]
        if count > MOST_ROWS or count * spec.layout.row_bytes > MOST_BYTES:
            with self._freeze({spec.name: ids_n}, blocking=False, reason="fetch") as whole:
                rows, step = whole.read(spec.name, ids_n), whole.step
            return unpacked(spec.name, spec.layout, step, ids_n, rows, states)
        parts, versions_n = RowParts(spec.layout, count, states), np.full(count, NOT_YET, np.int64)
        with self._fence.hold():
            step = self._fence.step
            rest_n = self._copy(table, ids_n, parts, versions_n)
            snapshot = self._freeze_rest(spec.name, ids_n[rest_n])
        self._check(spec.name, step, ids_n, versions_n)
        fresh_n = np.flatnonzero(versions_n == 0)
        if fresh_n.shape[0]:
            parts.put(fresh_n, initial_rows(spec.absent, ids_n[fresh_n]))
        if snapshot is not None:
            with snapshot:
                rest = snapshot.read(spec.name, ids_n[rest_n])
            parts.put(rest_n, rest.rows_nb)
            versions_n[rest_n] = rest.versions_n
        return gathered(spec.name, spec.layout, step, ids_n, parts.singles, versions_n, states)

    def _copy(self, table: int, ids_n: Int64s, parts: RowParts, versions_n: Int64s) -> Int64s:
        """Copy what can be copied at once; returns the positions of the rest. Inside the turn.

        L1 first: a row that leaves it in between is below by then.
        """
        away_n, arrays = None, (parts.head_nb, parts.tail_nb)
        if not self._fence.step_waits:
            away_n = self._residency.copy_few(table, ids_n, arrays, versions_n, PATIENCE_S)
        if away_n is None:
            return np.arange(ids_n.shape[0])
        if away_n.shape[0]:
            below = self._residency.below.get_few(table, ids_n[away_n])
            if below is None:
                return away_n
            rows_mb, versions_n[away_n] = below
            parts.put(away_n, rows_mb)
        self._residency.counters.copied_at_fence += 1
        return away_n[:0]

    def _freeze_rest(self, table: str, ids_n: Int64s) -> Snapshot | None:
        return self._freeze({table: ids_n}, blocking=False, reason="fetch") if ids_n.shape[0] else None

    def _check(self, table: str, step: int, ids_n: Int64s, versions_n: Int64s) -> None:
        """Nobody can have written: said aloud if someone did."""
        later = np.flatnonzero(versions_n > pack_version(self._generation, step))
        if later.shape[0]:
            row, version = int(ids_n[later[0]]), int(versions_n[later[0]])
            raise RuntimeError(
                f"a fetch at the end of step {step}: row {row} of table {table!r} came out as step {version & MAX_STEP} left it"
            )
