"""The rows as they stood at one step's end, readable while training goes on. How and why: see the room's README."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from cuda.backend import forbid_event_loop
from cuda.plan import Int32s, Int64s, SlotPlan
from pipeline.rows.distinct import union
from pipeline.rows.initial import initial_rows
from pipeline.rows.room import MakeRoom
from pipeline.rows.version import MAX_STEP
from pipeline.store.coverage import Coverage, among
from pipeline.store.errors import NotFrozen, SnapshotAbandoned, UnknownTable
from pipeline.store.shadow import SavedRows, Shadow
from pipeline.store.tier import RowBytes, unsaved_ids

if TYPE_CHECKING:
    from pipeline.store.residency import Residency

CHUNK_ROWS: Final = 8192
"""Most rows copied under one hold of the residency lock."""
NO_IDS: Final = np.empty(0, dtype=np.int64)
SCAN_SLOTS: Final = 65_536


@dataclass(frozen=True, slots=True)
class SnapshotRows:
    """Rows in the order asked, the caller's own. Where ``held_n`` is False the row was never updated: initial (or
    its table's default row), version 0.
    """

    rows_nb: RowBytes
    """[n, row_bytes of the table]"""
    versions_n: Int64s
    held_n: npt.NDArray[np.bool_]


class Snapshot:
    """Made by ``Store.freeze``; a context manager. ``read`` and ``ids`` block, on any thread but the event loop's."""

    def __init__(
        self,
        residency: Residency,
        shadow: Shadow,
        ids: Mapping[str, Int64s] | Literal["all"],
        coverage: Coverage,
        blocking: bool,
        reason: str,
        on_close: Callable[[Snapshot], None],
    ) -> None:
        self._residency, self._shadow, self._on_close = residency, shadow, on_close
        self.coverage, self.version = coverage, coverage.version
        self.step = self.version & MAX_STEP
        self.blocking, self.reason = blocking, reason
        self.closed = False
        self._tables = residency.tables
        self._asked = ids
        self._listed: dict[str, Int64s] = {}
        self._listing = threading.Lock()

    def read(self, table: str, ids_n: Int64s) -> SnapshotRows:
        """Rows as they stood when ``step`` had ended; duplicates allowed.

        Raises SnapshotAbandoned when they were not kept, NotFrozen for rows that were not part of the snapshot.
        """
        return self.read_tables({table: ids_n})

    def read_tables(self, ids: Mapping[str, Int64s]) -> SnapshotRows:
        """The same for several tables at once: the rows of the first one's ids, then those of the second, and so on.

        All are as wide as the longest row of these tables; what stands behind a shorter one means nothing.
        """
        forbid_event_loop("Snapshot.read")
        numbers = {table: self._number(table) for table in ids}
        tables_n = np.repeat(np.array(list(numbers.values()), np.int32), [len(asked) for asked in ids.values()])
        ids_n = np.concatenate([NO_IDS, *ids.values()]).astype(np.int64, copy=False)
        if self.coverage.members is not None:
            self._check_members(numbers, tables_n, ids_n)
        row_bytes = max((self._residency.specs[number].layout.row_bytes for number in numbers.values()), default=0)
        rows_nb, versions_n = self._collect_all(tables_n, ids_n, row_bytes)
        self._check_versions(tables_n, ids_n, versions_n)
        self._fill_absent(numbers, tables_n, ids_n, rows_nb, versions_n)
        return SnapshotRows(rows_nb, versions_n, versions_n > 0)

    def encode(
        self, tables: Sequence[str], groups: tuple[Int64s, Int64s], codecs_t: Sequence[str], make_room: MakeRoom
    ) -> int | None:
        """Encode the rows of several groups of ids, each once, as ``Backend.encode_distinct`` does; returns their digest.

        ``groups`` as ``Backend.find_distinct`` takes them, of ``tables``. Only while all lie in L1, in the versions that the snapshot
        covers, and no step has written any frozen row yet, for then it would not be known which ones came out torn. None: it was
        not so, or there was no room, and what was written means nothing; ``read_tables`` them.
        """
        forbid_event_loop("Snapshot.encode")
        if self.coverage.members is not None or list(tables) != list(self._tables):
            return None
        encoded = self._residency.encode_resident(groups, codecs_t, (self.coverage.low, self.version), make_room)
        # In this order, as in ``_collect``: who writes a frozen row saves it first.
        if encoded is None or not self._shadow.untouched:
            return None
        digest, strangers = encoded
        return None if strangers else digest

    def weights(self, table: str, ids_n: Int64s) -> npt.NDArray[Any]:
        """The weights alone, float32 [n, dim]: a view of rows as ``read`` returns them, or widened from 16 bits."""
        layout = self._residency.specs[self._number(table)].layout
        return layout.singles(self.read(table, ids_n).rows_nb, layout.columns[0].name)

    def ids(self, table: str) -> Int64s:
        """Sorted. Of a snapshot of all rows: those ever updated when ``step`` had ended (since the lower bound, if
        there is one). Of others: the ids it was taken for.
        """
        forbid_event_loop("Snapshot.ids")
        number = self._number(table)
        if self._asked != "all":
            return np.unique(self._asked.get(table, np.empty(0, dtype=np.int64)))
        with self._listing:
            if not self._listed:
                self._listed = self._resident_ids()
            ids = union(self._listed[table], self._residency.tier.ids(table))
        saved, versions, why = self._shadow.items(number)
        self._check_kept(why)
        if self._residency.forgets:
            ids = union(ids, saved[versions > 0])  # those that have ended since are nowhere else
        if self.coverage.low > 0:
            return self._changed_among(number, ids)
        return np.setdiff1d(ids, saved[versions == 0], assume_unique=True)

    def unsaved(self, since: int) -> dict[str, Int64s]:
        """Ids by table, sorted, of all rows that a checkpoint has to save: those that changed after packed version ``since``, and
        perhaps more. To be asked while the checkpoint's mark stands (``rowlog.log.mark``); this is the snapshot taken with it.
        """
        forbid_event_loop("Snapshot.unsaved")
        found, tier = self._residency.unsaved(since), self._residency.tier
        return {
            table: np.unique(np.concatenate([ids, unsaved_ids(tier, table, since), self._ended(number)]))
            for (table, number), ids in zip(self._tables.items(), found.values(), strict=True)
        }

    def _ended(self, number: int) -> Int64s:
        """Ids of rows that ended since, and others that were kept. Asked after L1 and the tiers: the rows are nowhere else."""
        ids, versions, why = self._shadow.items(number)
        self._check_kept(why)
        return ids[versions > 0] if self._residency.forgets else NO_IDS

    def close(self) -> None:
        """Give back what was kept. May be called twice, and while another thread reads (whose read then fails)."""
        if not self.closed:
            self.closed = True
            self._on_close(self)
            self._shadow.close()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def save(self, plan: SlotPlan, versions_u: Int64s) -> bool:
        """Keep those rows of a step that are covered, before the step writes them. False: they fit nowhere. Compute
        lane only.
        """
        hits = self.coverage.of(plan.unique.tables_u, plan.unique.ids_u, versions_u)
        if not hits.shape[0]:
            return True
        tables, ids = plan.unique.tables_u[hits], plan.unique.ids_u[hits]
        rows, versions = self._residency.backend.read_rows(plan.slots_u[hits])
        return self._shadow.add(SavedRows(tables, ids, versions, rows))

    def save_ending(self, tables_x: Int32s, ids_x: Int64s, versions_x: Int64s, rows_xb: RowBytes) -> bool:
        """The same of rows that are about to end, by table, distinct ids. Those of version 0 do not change by that."""
        held = np.flatnonzero(versions_x > 0)
        tables_x, ids_x, versions_x = tables_x[held], ids_x[held], versions_x[held]
        hits = self.coverage.of(tables_x, ids_x, versions_x)
        if hits.shape[0]:
            rows = np.ascontiguousarray(rows_xb[held[hits]])
            if not self._shadow.add(SavedRows(tables_x[hits], ids_x[hits], versions_x[hits], rows)):
                return False
        self.coverage.end(tables_x, ids_x)
        return True

    @property
    def shadow(self) -> Shadow:
        return self._shadow

    def _collect_all(self, tables_n: Int32s, ids_n: Int64s, row_bytes: int) -> tuple[RowBytes, Int64s]:
        """Rows [n, row_bytes] and versions, chunk by chunk: only one chunk is as wide as the pool at a time."""
        count = ids_n.shape[0]
        if count <= CHUNK_ROWS:
            rows_nb, versions_n = self._collect(tables_n, ids_n)
            return rows_nb[:, :row_bytes], versions_n
        rows_nb = np.empty((count, row_bytes), dtype=np.uint8)
        versions_n = np.empty(count, dtype=np.int64)
        for start in range(0, count, CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            rows, versions_n[part] = self._collect(tables_n[part], ids_n[part])
            rows_nb[part] = rows[:, :row_bytes]
        return rows_nb, versions_n

    def _collect(self, tables_n: Int32s, ids_n: Int64s) -> tuple[RowBytes, Int64s]:
        """Copy from L1, from below, and then let the shadow replace what was overwritten meanwhile. The order is the
        proof.
        """
        rows_nb, versions_n = self._residency.copy_rows(tables_n, ids_n)
        self._check_kept(self._shadow.overlay(tables_n, ids_n, rows_nb, versions_n))
        return rows_nb, versions_n

    def _fill_absent(
        self, numbers: Mapping[str, int], tables_n: Int32s, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s
    ) -> None:
        """Where a table has a default row, it is what stands for rows that nobody updated."""
        for number in numbers.values():
            spec = self._residency.specs[number]
            if spec.default is not None:
                absent = np.flatnonzero((tables_n == number) & (versions_n == 0))
                rows_nb[absent, : spec.layout.row_bytes] = initial_rows(spec.absent, ids_n[absent])

    def _resident_ids(self) -> dict[str, Int64s]:
        """Ids of updated rows in L1. A row that leaves meanwhile is in the tier by then, where the caller looks
        afterwards.
        """
        residency = self._residency
        parts = [residency.updated_pairs(at, at + SCAN_SLOTS) for at in range(0, residency.l1_rows, SCAN_SLOTS)]
        tables = np.concatenate([part[0] for part in parts])
        ids = np.concatenate([part[1] for part in parts])
        return {name: ids[tables == number] for name, number in self._tables.items()}

    def _changed_among(self, number: int, ids: Int64s) -> Int64s:
        changed = []
        for start in range(0, ids.shape[0], CHUNK_ROWS):
            part = ids[start : start + CHUNK_ROWS]
            _, versions = self._collect(np.full(part.shape[0], number, dtype=np.int32), part)
            changed.append(part[(versions > self.coverage.low) & (versions <= self.version)])
        return np.concatenate(changed) if changed else ids

    def _check_kept(self, why: str | None) -> None:
        if self.closed:
            raise RuntimeError(f"the {self.reason} snapshot of step {self.step} was read after it was closed")
        if why is not None:
            raise SnapshotAbandoned(self.reason, self.step, self._shadow.num_rows, why)

    def _check_versions(self, tables_n: Int32s, ids_n: Int64s, versions_n: Int64s) -> None:
        strangers = self.coverage.strangers(versions_n)
        if not strangers.shape[0]:
            return
        first = int(strangers[0])
        table, row, version = (
            self._residency.specs[int(tables_n[first])].name,
            int(ids_n[first]),
            int(versions_n[first]),
        )
        low = self.coverage.low
        if version <= low:
            raise NotFrozen(table, row, self.step, f"it did not change after version {low}")
        if low > 0:
            why = f"it changed after that step, but not between it and version {low}"
            raise NotFrozen(table, row, self.step, why)
        raise RuntimeError(
            f"snapshot of step {self.step}: row {row} of table {table!r} came out as step {version & MAX_STEP} left it; "
            "the old one was not saved"
        )

    def _number(self, table: str) -> int:
        if table not in self._tables:
            raise UnknownTable(table, list(self._tables))
        return self._tables[table]

    def _check_members(self, numbers: Mapping[str, int], tables_n: Int32s, ids_n: Int64s) -> None:
        assert self.coverage.members is not None
        strangers = np.flatnonzero(~among(self.coverage.members, tables_n, ids_n))
        if strangers.shape[0]:
            first = int(strangers[0])
            table = next(name for name, number in numbers.items() if number == tables_n[first])
            why = "it was not among the ids the snapshot was taken for"
            raise NotFrozen(table, int(ids_n[first]), self.step, why)
