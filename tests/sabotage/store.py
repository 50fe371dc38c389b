"""Small sabotages of the store: each removes one protection. The stress run has to catch every one of them.

``SABOTAGES`` maps a name to a context manager inside which every store is broken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast
from unittest.mock import patch

import numpy as np

from cuda.plan import Int32s, Int64s, SlotPlan
from pipeline.rows.initial import initial_rows
from pipeline.store.below import Below
from pipeline.store.fence import Fence
from pipeline.store.fetched import RowParts
from pipeline.store.fetcher import Fetcher
from pipeline.store.reservation import Reservation
from pipeline.store.residency import Residency
from pipeline.store.shadow import SavedRows, Shadow
from pipeline.store.slots import CLEAN, DIRTY, Decision, SlotMachine
from pipeline.store.snapshot import Snapshot
from pipeline.store.snapshots import Snapshots
from pipeline.store.store import Store
from pipeline.store.tier import RowBytes
from pipeline.store.victims import VictimQueue


def nothing(*_arguments: Any) -> None:
    """Stands where a protection was."""


@contextmanager
def skip_the_shadow_save() -> Iterator[None]:
    """A step overwrites rows that an open snapshot has not read."""
    with patch.object(Snapshots, "before_write", nothing):
        yield


@contextmanager
def save_after_the_write() -> Iterator[None]:
    """The shadow gets the rows as the step left them."""
    save, tell = Snapshots.before_write, Store._tell

    def late(self: Store, step: int, plan: SlotPlan | None) -> None:
        if plan is not None:
            save(self._snapshots, plan)
        tell(self, step, plan)

    with patch.object(Snapshots, "before_write", nothing), patch.object(Store, "_tell", late):
        yield


@contextmanager
def look_at_the_shadow_first() -> Iterator[None]:
    """A reader asks the shadow before it copies, not after."""
    collect, overlay, copying = Snapshot._collect, Shadow.overlay, threading.local()

    def early(self: Snapshot, tables_n: Int32s, ids_n: Int64s) -> tuple[RowBytes, Int64s]:
        saved_rows = np.empty((ids_n.shape[0], self._residency.backend.row_bytes), dtype=np.uint8)
        saved_versions = np.full(ids_n.shape[0], -1, dtype=np.int64)
        self._check_kept(overlay(self._shadow, tables_n, ids_n, saved_rows, saved_versions))
        copying.now = True
        rows_nb, versions_n = collect(self, tables_n, ids_n)
        copying.now = False
        hits = saved_versions >= 0
        rows_nb[hits], versions_n[hits] = saved_rows[hits], saved_versions[hits]
        return rows_nb, versions_n

    def not_now(self: Shadow, tables_n: Int32s, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s) -> str | None:
        return None if getattr(copying, "now", False) else overlay(self, tables_n, ids_n, rows_nb, versions_n)

    with patch.object(Snapshot, "_collect", early), patch.object(Shadow, "overlay", not_now):
        yield


@contextmanager
def forget_rows_never_updated() -> Iterator[None]:
    """The first update of a row saves nothing, as if version 0 were no state of a row."""
    freeze = Snapshots.freeze

    def narrow(self: Snapshots, *arguments: Any) -> Snapshot:
        snapshot = freeze(self, *arguments)
        snapshot.coverage.low = max(snapshot.coverage.low, 0)
        return snapshot

    with patch.object(Snapshots, "freeze", narrow), patch.object(Snapshot, "_check_versions", nothing):
        yield


@contextmanager
def lose_part_of_a_save() -> Iterator[None]:
    """The last row of each save is left out."""
    add = Shadow.add

    def short(self: Shadow, saved: SavedRows) -> bool:
        return add(self, SavedRows(saved.tables_m[:-1], saved.ids_m[:-1], saved.versions_m[:-1], saved.rows_mb[:-1]))

    with patch.object(Shadow, "add", short):
        yield


@contextmanager
def reuse_a_slot_before_its_write_back() -> Iterator[None]:
    """Dirty rows reach the tier only when the next batch is reserved."""
    reserve = Residency.try_reserve
    late: list[tuple[Int32s, Int64s, RowBytes, Int64s]] = []

    def postponed(self: Residency, slots_m: Int32s) -> None:
        late.append((*self.backend.pairs(slots_m), *self.backend.read_rows(slots_m)))
        with self._slots:
            self.machine.cleaned(slots_m)

    def reserve_late(self: Residency, *arguments: Any) -> Any:
        waiting, late[:] = list(late), []
        for tables, ids, rows, versions in waiting:
            for number in np.unique(tables):
                part = np.flatnonzero(tables == number)
                self.tier.put(self.specs[number].name, ids[part], rows[part], versions[part])
        return reserve(self, *arguments)

    with patch.object(Residency, "_write_back", postponed), patch.object(Residency, "try_reserve", reserve_late):
        yield


@contextmanager
def skip_the_write_back() -> Iterator[None]:
    """A dirty row leaves and nobody writes it down."""

    def nothing(self: Residency, slots_m: Int32s) -> None:
        with self._slots:
            self.machine.cleaned(slots_m)

    with patch.object(Residency, "_write_back", nothing):
        yield


@contextmanager
def forget_the_dirty_mark() -> Iterator[None]:
    """A row that was written counts as equal to the tier below."""
    with patch.object(Residency, "mark_written", nothing):
        yield


@contextmanager
def drop_a_pin() -> Iterator[None]:
    """One row of each batch is pinned and let go again at once."""
    commit = SlotMachine.commit

    def careless(self: SlotMachine, decision: Decision) -> None:
        commit(self, decision)
        self.arrays.pins_s[decision.slots_u[:1]] -= 1
        self.num_pinned = int(np.count_nonzero(self.arrays.pins_s))

    def forgiving(self: SlotMachine, slots_u: Int32s, written: bool = False) -> int:
        if written:
            self.arrays.states_s[slots_u[:1]] = DIRTY
        return unpin(self, slots_u[1:], written) + 1

    unpin = SlotMachine.unpin
    with patch.object(SlotMachine, "commit", careless), patch.object(SlotMachine, "unpin", forgiving):
        yield


@contextmanager
def take_a_row_of_the_batch_itself() -> Iterator[None]:
    """Victims are chosen without a look at what the batch needs."""
    take = VictimQueue.take
    with patch.object(VictimQueue, "take", lambda self, need, _token, now: take(self, need, -1, now)):
        yield


class _NoLock(nullcontext[None]):
    """Stands where a lock was."""

    def acquire(self, **_arguments: Any) -> bool:
        return True

    def release(self) -> None:
        pass


@contextmanager
def skip_the_residency_lock() -> Iterator[None]:
    """A snapshot copies out of L1 while rows come and go."""
    with patch.object(Residency, "copy_resident", _unlocked(Residency.copy_resident)):
        yield


@contextmanager
def skip_the_residency_lock_in_a_turn() -> Iterator[None]:
    """So does a fetch that has its turn at the fence."""
    with patch.object(Residency, "copy_few", _unlocked(Residency.copy_few)):
        yield


def _unlocked(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of ``Residency`` that does not have the lock it takes."""

    def unlocked(self: Residency, *arguments: Any) -> Any:
        bare = object.__new__(Residency)
        bare.__dict__.update(self.__dict__, residency=_NoLock())
        return method(bare, *arguments)

    return unlocked


class _NoTurn:
    """Stands where the fence was: whoever asks has his turn at once."""

    step_waits = False

    def __init__(self, fence: Fence) -> None:
        self._fence = fence

    def hold(self) -> _NoLock:
        return _NoLock()

    @property
    def step(self) -> int:
        return self._fence.step


@contextmanager
def copy_without_a_turn() -> Iterator[None]:
    """A fetch copies rows while a step writes them."""
    begin = Fetcher.__init__

    def careless(self: Fetcher, residency: Residency, fence: Any, *rest: Any) -> None:
        begin(self, residency, cast(Fence, _NoTurn(fence)), *rest)

    with patch.object(Fetcher, "__init__", careless), patch.object(Fetcher, "_check", nothing):
        yield


@contextmanager
def look_below_before_l1_in_a_turn() -> Iterator[None]:
    """A fetch asks the tier first: a row that leaves L1 in between is as the tier had it before."""
    honest = Fetcher._copy

    def below_first(self: Fetcher, table: int, ids_n: Int64s, parts: RowParts, versions_n: Int64s) -> Int64s:
        below = self._residency.below.get_few(table, ids_n)
        if below is None:
            return honest(self, table, ids_n, parts, versions_n)
        everything_n = np.arange(ids_n.shape[0])
        rows_nb, versions_n[:] = below
        parts.put(everything_n, rows_nb)
        self._residency.copy_few(table, ids_n, (parts.head_nb, parts.tail_nb), versions_n, 60.0)
        return everything_n[:0]

    with patch.object(Fetcher, "_copy", below_first):
        yield


@contextmanager
def read_rows_that_are_on_their_way() -> Iterator[None]:
    """A snapshot takes a slot's row though it has not come yet."""
    with patch("pipeline.store.l1_reads.CLEAN", 1):
        yield


@contextmanager
def load_without_the_tier() -> Iterator[None]:
    """Each row that comes into L1 begins anew."""

    def nothing(self: Below, reservation: Reservation) -> int:
        unique, misses_m = reservation.plan.unique, reservation.misses_m
        for number, spec in enumerate(self._specs):
            some = np.flatnonzero(unique.tables_u[misses_m] == number)
            rows_mb = initial_rows(spec, unique.ids_u[misses_m[some]])
            self._backend.write_rows(reservation.slots_m[some], rows_mb, np.zeros(len(some), dtype=np.int64))
        return 0

    with patch.object(Below, "bring_in", nothing):
        yield


@contextmanager
def freeze_without_the_fence() -> Iterator[None]:
    """A snapshot begins while a step writes."""
    with patch.object(Fence, "at", lambda _self, call: call()), patch.object(Fence, "hold", lambda _self: _NoLock()):
        yield


@contextmanager
def count_young_rows_as_held() -> Iterator[None]:
    """A snapshot lists rows whose first update came after it."""
    honest = Shadow.items

    def without_young(self: Shadow, table: int) -> tuple[Int64s, Int64s, str | None]:
        ids, versions, why = honest(self, table)
        return ids[versions > 0], versions[versions > 0], why

    with patch.object(Shadow, "items", without_young):
        yield


@contextmanager
def look_below_before_l1() -> Iterator[None]:
    """A listing asks the tier first: a row that leaves L1 in between is in neither answer."""
    honest = Snapshot.ids

    def below_first(self: Snapshot, table: str) -> Int64s:
        if self._asked != "all" or self.coverage.low > 0:
            return honest(self, table)
        below = self._residency.tier.ids(table)
        ids = np.union1d(below, self._resident_ids()[table])
        saved, versions, why = self._shadow.items(self._number(table))
        self._check_kept(why)
        return np.setdiff1d(ids, saved[versions == 0])

    with patch.object(Snapshot, "ids", below_first):
        yield


@contextmanager
def call_rows_clean_by_an_older_copy() -> Iterator[None]:
    """What was written back counts as clean at the next write-back too, whatever a step has written since."""
    honest = Residency._write_back
    copied: list[Int32s] = []

    def careless(self: Residency, slots_m: Int32s) -> None:
        honest(self, slots_m)
        with self._slots:
            states_s = self.machine.arrays.states_s
            for earlier in copied:
                states_s[earlier[states_s[earlier] == DIRTY]] = CLEAN
        copied.append(slots_m)

    with patch.object(Residency, "_write_back", careless):
        yield


SABOTAGES: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    sabotage.__name__: sabotage
    for sabotage in (
        skip_the_shadow_save,
        save_after_the_write,
        look_at_the_shadow_first,
        forget_rows_never_updated,
        lose_part_of_a_save,
        reuse_a_slot_before_its_write_back,
        skip_the_write_back,
        forget_the_dirty_mark,
        drop_a_pin,
        take_a_row_of_the_batch_itself,
        skip_the_residency_lock,
        skip_the_residency_lock_in_a_turn,
        copy_without_a_turn,
        look_below_before_l1_in_a_turn,
        read_rows_that_are_on_their_way,
        load_without_the_tier,
        freeze_without_the_fence,
        count_young_rows_as_held,
        look_below_before_l1,
        call_rows_clean_by_an_older_copy,
    )
}
