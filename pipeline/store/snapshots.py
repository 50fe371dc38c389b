"""The open snapshots of a store: made at a fence, told of each step before it writes, given up or waited for when
they grow too big.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from pipeline.store.coverage import Coverage
from pipeline.store.shadow import Shadow, ShadowRoom
from pipeline.store.snapshot import CHUNK_ROWS, Snapshot
from pipeline.store.spill import SpillFile

if TYPE_CHECKING:
    from cuda.plan import Int64s, SlotPlan
    from pipeline.files import Files
    from pipeline.rows.index import IdIndex
    from pipeline.store.expiry import Expired
    from pipeline.store.options import StoreOptions
    from pipeline.store.residency import Residency

SPILL_PREFIX: Final = "shadow-"


class Snapshots:
    """``files`` and ``spill_directory`` say where shadows may spill; None: nowhere."""

    def __init__(
        self, residency: Residency, options: StoreOptions, files: Files | None, spill_directory: str | None
    ) -> None:
        self._residency = residency
        spills = files is not None and spill_directory is not None and options.spill_bytes > 0
        self._files, self._directory = (files, spill_directory) if spills else (None, None)
        self.room = ShadowRoom(options.shadow_bytes, options.spill_bytes if spills else 0)
        self._lock = threading.Lock()
        self._numbers = count(1)
        self.open: tuple[Snapshot, ...] = ()
        """Replaced, never changed: the compute lane reads it without the lock."""

    def clear_spill(self) -> None:
        """Make the spill directory, and remove what a process that died has left there."""
        if self._files is None or self._directory is None:
            return
        self._files.make_dirs(self._directory)
        for name in self._files.list(self._directory):
            if name.startswith(SPILL_PREFIX):
                self._files.remove(os.path.join(self._directory, name))

    def freeze(
        self,
        ids: Mapping[str, Int64s] | Literal["all"],
        members: Mapping[int, IdIndex] | None,
        version: int,
        changed_since: int,
        blocking: bool,
        reason: str,
    ) -> Snapshot:
        """Begin a snapshot at packed ``version``; ``members`` of ``index_members``, where it is not one of all rows or of changed
        ones. The caller holds the fence.
        """
        residency = self._residency
        spill = None
        if self._files is not None and self._directory is not None:
            path = os.path.join(self._directory, f"{SPILL_PREFIX}{next(self._numbers)}")
            spill = SpillFile(self._files, path, residency.backend.row_bytes)
        shadow = Shadow(self.room, spill)
        low = changed_since if changed_since > 0 else -1
        coverage = Coverage(low, version, members, residency.forgets)
        snapshot = Snapshot(residency, shadow, ids, coverage, blocking, reason, self._closed)
        with self._lock:
            self.open = (*self.open, snapshot)
            residency.counters.snapshots[reason] += 1
        return snapshot

    def before_write(self, plan: SlotPlan) -> None:
        """Save the rows a step is about to write, for every open snapshot that needs them. Compute lane, inside the
        fence.
        """
        snapshots = self.open
        if not snapshots:
            return
        versions_u = self._residency.backend.read_versions(plan.slots_u)
        for snapshot in snapshots:
            if not snapshot.save(plan, versions_u):
                self._no_room(snapshot, partial(snapshot.save, plan, versions_u))

    def before_end(self, expired: Expired) -> None:
        """Save the rows that are about to end, likewise. Compute lane, inside the fence: nobody changes them meanwhile."""
        snapshots = self.open
        needed_x = np.zeros(expired.ids_x.shape[0], dtype=np.bool_)
        for snapshot in snapshots:
            needed_x |= snapshot.coverage.may_be_ending(expired.last_use_x)
        needed = np.flatnonzero(needed_x)
        for start in range(0, needed.shape[0], CHUNK_ROWS):
            some = needed[start : start + CHUNK_ROWS]
            tables_x, ids_x = expired.tables_x[some], expired.ids_x[some]
            rows_xb, versions_x = self._residency.copy_rows(tables_x, ids_x)
            for snapshot in snapshots:
                save = partial(snapshot.save_ending, tables_x, ids_x, versions_x, rows_xb)
                if not save():
                    self._no_room(snapshot, save)

    def _no_room(self, snapshot: Snapshot, save: Callable[[], bool]) -> None:
        counters, error = self._residency.counters, snapshot.shadow.spill_error
        if not snapshot.blocking:
            room = self.room
            why = (
                f"memory ({room.memory_bytes} of {room.max_memory_bytes} bytes) and spill file ({room.spill_bytes} of "
            )
            why += f"{room.max_spill_bytes}) have no room" + (f"; the spill file failed: {error}" if error else "")
            snapshot.shadow.give_up(why)
            counters.abandoned[snapshot.reason] += 1
            return
        began = time.monotonic()
        while True:
            seen = self.room.times_freed
            if snapshot.closed or save():
                break
            self.room.wait_for_more(seen)
        held_s = counters.held_training_s
        held_s[snapshot.reason] = held_s.get(snapshot.reason, 0.0) + time.monotonic() - began

    def _closed(self, snapshot: Snapshot) -> None:
        """Called once by each snapshot that closes, on any thread."""
        with self._lock:
            self.open = tuple(other for other in self.open if other is not snapshot)
            counters, shadow = self._residency.counters, snapshot.shadow
            counters.saved_rows += shadow.num_rows
            counters.spilled_rows += shadow.spilled_rows
            counters.spill_errors += shadow.spill_error is not None

    def close(self) -> None:
        """Close all snapshots; a step that waits for one goes on."""
        for snapshot in self.open:
            snapshot.close()
