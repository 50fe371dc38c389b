"""The Store: rows of all tables in L1 and the tier below, written step by step, readable at any step's end.

Lanes: ``expect`` and ``try_reserve`` on one thread; ``read_misses`` on several; ``gather``, ``update`` and ``skip_step`` on
the compute lane; ``release``, ``clean_ahead`` and ``freeze`` on any. All block, and raise RuntimeError on an event
loop's thread. Locks, each taken before those to its right: fence, residency, slots; fence, shadow, room; reservation,
tier, slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from cuda.backend import Backend, UpdateRule, forbid_event_loop
from cuda.plan import BatchIds, FeatureSet, Int64s, Matrix, SlotPlan, UniqueIds
from pipeline.files import Files, RealFiles
from pipeline.rows.spec import TableSpec
from pipeline.rows.version import pack_version
from pipeline.store.change import Changes
from pipeline.store.coverage import index_members
from pipeline.store.default_rows import default_slots, write_default_rows
from pipeline.store.dynamic import DynamicTables
from pipeline.store.ending import Ending, ExpiryListener
from pipeline.store.errors import UnknownTable
from pipeline.store.fence import Fence
from pipeline.store.fetched import FetchedRows, checked_ids
from pipeline.store.fetcher import Fetcher
from pipeline.store.hooks import HookPoint, OnError
from pipeline.store.loading import ByName, GivenRows, Loading, pack
from pipeline.store.meta import take_meta, write_meta
from pipeline.store.options import StoreOptions
from pipeline.store.policy import find_policy
from pipeline.store.report import report
from pipeline.store.reservation import Reservation
from pipeline.store.residency import Residency
from pipeline.store.snapshot import Snapshot
from pipeline.store.snapshots import Snapshots
from pipeline.store.step_rules import Rate, StepRules, count_bad
from pipeline.store.tier import RowBytes, Tier

StepListener = Callable[[int, SlotPlan | None], None]
"""Called with a step and its plan: None where it wrote no rows, one without samples and slots of a load."""


class Store:
    """Opens and closes ``backend`` and ``tier``. ``rules``, ``rates`` are in the order of ``specs``; ``spill_path`` is a directory."""

    def __init__(
        self,
        specs: Sequence[TableSpec],
        rules: Sequence[UpdateRule],
        features: FeatureSet,
        backend: Backend,
        tier: Tier,
        options: StoreOptions,
        *,
        rates: Sequence[Rate | None] | None = None,
        generation: int = 1,
        spill_path: str | None = None,
        files: Files | None = None,
        dynamic: DynamicTables | None = None,
    ) -> None:
        assert len(specs) == len(rules) == features.num_tables
        self.specs, self.features, self.options, self.generation = tuple(specs), features, options, generation
        self.backend, self.tier, self.fence, self.changes = backend, tier, Fence(), Changes(backend)
        self._rules = StepRules(rules, rates)
        self.dynamic = dynamic
        """None where every id has a row for good. Whoever reserves pins its ``state`` to markers, as ``dynamic``."""
        policy = find_policy(options.policy)
        self.forgets = dynamic is not None and dynamic.expire
        """Whether rows of any table may expire."""
        self._residency = Residency(
            self.specs, backend, tier, options.l1_rows, policy, options.clean_ahead, forgets=self.forgets
        )
        self._snapshots = Snapshots(self._residency, options, files or RealFiles(), spill_path)
        self.counters, self.hooks = self._residency.counters, self._residency.hooks
        self.loads_wait = getattr(tier, "gets_at_once", 1) > 1
        """Whether ``read_misses`` may take long and little of the processor, as it waits for a disk."""
        self._fetcher = Fetcher(self._residency, self.fence, self.freeze, generation)
        self._listeners: list[StepListener] = []
        self._ending = Ending(self._residency, self._snapshots)
        self._on_room: list[Callable[[], None]] = []

    def spec_of(self, table: str) -> TableSpec:
        """Raises UnknownTable."""
        number = self._residency.tables.get(table)
        if number is None:
            raise UnknownTable(table, list(self._residency.tables))
        return self.specs[number]

    def open(self) -> None:
        """Allocate L1, open the tier, empty the spill directory."""
        self._default_slots_t = default_slots(self.specs, self.options.l1_rows)
        self.backend.open(self.specs, self.options.l1_rows + int(np.count_nonzero(self._default_slots_t >= 0)))
        write_default_rows(self.specs, self._default_slots_t, self.backend)
        self.tier.open(self.specs)
        self._snapshots.clear_spill()

    def close(self) -> None:
        """Close snapshots, then what reads, the tier and the backend. May be called twice."""
        self._snapshots.close()
        self._residency.close()
        self.tier.close()
        self.backend.close()

    def expect(self, step: int, unique: UniqueIds) -> None:
        """Hint: a queued batch will reserve these rows as ``step``. Only a policy that looks ahead uses it."""
        forbid_event_loop("Store.expect")
        self._residency.expect(step, unique)

    def try_reserve(self, step: int, batch: BatchIds, unique: UniqueIds) -> Reservation | None:
        """Pin slots for all rows of a batch, or for none: None says that too many slots are pinned just now (see ``on_room``).

        Steps rise from call to call. Dirty rows that have to leave are in the tier, visible, before their slots are given away. Raises
        L1TooSmall, OutOfStep, and what the tier raises (then nothing has changed but that some rows may be clean).
        """
        forbid_event_loop("Store.try_reserve")
        if self.dynamic is None:
            return take_meta(self.backend, self._residency.try_reserve(step, batch, unique))
        screened = self.dynamic.screen(step, unique)
        reservation = take_meta(self.backend, self._residency.try_reserve(step, batch, screened.own))
        if reservation is not None:
            reservation.reading = screened.reading(reservation.plan, self._default_slots_t)
            self._ending.tell(step, screened.expired)
        return reservation

    def on_room(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called, on whichever thread, each time slots have lost their last pin."""
        self._on_room.append(callback)

    def read_misses(self, reservation: Reservation) -> None:
        """Read the batch's missing rows into their slots. Different reservations may load at once, in any order."""
        forbid_event_loop("Store.read_misses")
        self._residency.read_misses(reservation)

    def gather(self, reservation: Reservation, outs: Sequence[Matrix]) -> None:
        """Pool the batch's rows into ``outs``, one per feature. It and all earlier batches that share rows must be
        loaded.
        """
        forbid_event_loop("Store.gather")
        self._residency.check_readable(reservation)
        self.backend.gather_pool(reservation.reading or reservation.plan, outs)

    def update(
        self,
        reservation: Reservation,
        grads: Sequence[Matrix | None],
        *,
        dense_step: Callable[[], None] | None = None,
    ) -> None:
        """Write one step: rows and their meta columns, then whatever ``dense_step`` writes, then the fence, then hooks, then the
        listeners. Between these two, rows that expire with the step end.

        Raises BadGradients, unless such rows are to be skipped. An error inside the fence breaks it (BrokenFence ever after): half a
        step is no state that anyone may read.
        """
        forbid_event_loop("Store.update")
        step, plan = reservation.step, reservation.plan
        if self.hooks.before_update:
            self._residency.check_readable(reservation, "update")
            self.hooks.run_before_update(step, plan, grads)
        with self.fence.hold_to_write():
            with self.fence.write(step):
                self._residency.mark_written(reservation)
                self._snapshots.before_write(plan)
                bad_t = self.changes.update(plan, grads, self._rules.at(step), pack_version(self.generation, step))
                count_bad(bad_t, self.specs, step, self.options.bad_gradients == "skip", self.counters.bad_gradients)
                write_meta(self.backend, reservation)
                if dense_step is not None:
                    dense_step()
            self._tell(step, plan)

    def skip_step(self, step: int) -> None:
        """A step that updates nothing."""
        with self.fence.hold_to_write():
            with self.fence.write(step):
                pass
            self._tell(step, None)

    def load(self, table: str, ids: Any, rows: Any, states: ByName | None = None, meta: ByName | None = None) -> int:
        """Overwrite rows, as a step of its own whose number is returned: ``store.loading``. All arrays are copied.

        ``ids``: distinct int64 [n], at most ``store.load_rows``. ``rows``: weights float32 [n, dim], rounded to nearest where the table
        keeps 16 bits, or float16 where it keeps that. ``states``, ``meta``: all columns of a kind, by name [n, width]; None: zeros.

        On the compute lane, between two steps, while nothing is reserved. Raises UnknownTable, BadLoad, BatchesInFlight; a tier's errors.
        """
        forbid_event_loop("Store.load")
        return self.load_packed([(table, *pack(self.spec_of(table), ids, rows, states, meta, self.options.load_rows))])

    def load_packed(self, parts: Iterable[GivenRows]) -> int:
        """The same of packed finite rows, any number of several tables, each named once. Raises what ``parts`` raises too."""
        loading = Loading(self._residency, self._snapshots, self.features, self.release, self.fence, parts)
        with loading, self.fence.hold_to_write():
            step, plan = loading.write(self.generation), loading.plan
            if self.dynamic is not None:
                self.dynamic.bring_all(step, plan.unique)
            self._tell(step, plan, updated=False)
        return step

    def add_hook(
        self,
        at: HookPoint,
        call: Callable[[str, Int64s, Any], Any],
        *,
        tables: Sequence[str] | None = None,
        on_error: OnError = "stop",
        name: str | None = None,
    ) -> None:
        """Have ``call(table, ids, gradients or rows)`` called ``at`` a place of ``store.hooks``, behind the hooks that are there.

        ``tables``: their names; all when None. ``on_error``: what it raises stops the run, or is counted. Raises BadHook, and
        RuntimeError when a batch was reserved already.
        """
        if self._residency.began:
            raise RuntimeError("hooks can be added only before the first batch was reserved")
        self.hooks.add(at, call, tables, on_error, name)

    def on_step(self, listener: StepListener) -> None:
        """Have ``listener`` called at each step's end, on the compute lane, before anyone else gets the fence; quick."""
        self._listeners.append(listener)

    def on_expired(self, listener: ExpiryListener) -> None:
        """Have ``listener`` called with the rows that end with a step, before those of ``on_step``, by the same rules."""
        self._ending.listeners.append(listener)

    def _tell(self, step: int, plan: SlotPlan | None, updated: bool = True) -> None:
        """Still inside the fence; ``updated``: by an optimizer. Where a listener fails, others have not heard of the step: nobody may see
        its end as whole.
        """
        try:
            if self.hooks.after_update and plan is not None and updated:
                self.hooks.run_after_update(step, plan)
            self._ending.carry_out(step)
            for listener in self._listeners:
                listener(step, plan)
        except BaseException:
            self.fence.spoil(step)
            raise

    def release(self, reservation: Reservation) -> None:
        """Unpin a batch's rows, whether it was updated or not. Once per reservation."""
        forbid_event_loop("Store.release")
        if self._residency.release(reservation):
            for callback in self._on_room:
                callback()

    def clean_ahead(self) -> int:
        """Write back rows that will soon have to leave, a bounded number; returns how many."""
        forbid_event_loop("Store.clean_ahead")
        return self._residency.clean_ahead()

    def freeze(
        self,
        ids: Mapping[str, Int64s] | Literal["all"],
        *,
        changed_since: int = 0,
        blocking: bool,
        reason: str = "snapshot",
    ) -> Snapshot:
        """The rows as they stand at the last step's end. Call it inside ``fence.at`` or a step listener to know which
        step that is; elsewhere it takes its own turn at the fence.

        ``ids`` by table, or all. ``changed_since``: a packed version; only rows with a higher one are covered, which
        spares the index of ``ids`` that is otherwise made here, before the turn at the fence. ``blocking``: when there is
        no room to keep old rows, training waits until the snapshot is closed (counted under ``reason``); else the
        snapshot is abandoned.
        """
        for table in () if ids == "all" else ids:
            self.spec_of(table)
        members = None if ids == "all" or changed_since else index_members(ids, self._residency.tables)
        with self.fence.hold():
            version = pack_version(self.generation, self.fence.step)
            return self._snapshots.freeze(ids, members, version, changed_since, blocking, reason)

    def fetch_rows(self, table: str, ids: Any, states: bool = True) -> FetchedRows:
        """Weights, and with ``states`` all else that rows have, of any rows as the last step left them, in the order asked; duplicates
        allowed. They come from whichever tier holds them, and it changes nothing about where rows are.

        On any thread but the event loop's, beside training. Raises UnknownTable, BadFetch (no ids, or more than
        ``store.fetch_rows``), and SnapshotAbandoned when training overwrote so many of them meanwhile that old rows found no room.
        """
        forbid_event_loop("Store.fetch_rows")
        self.spec_of(table)
        ids_n = checked_ids(table, ids, self.options.fetch_rows)
        return self._fetcher.fetch(self._residency.tables[table], ids_n, states)

    def load_rows(self, table: str, ids: Int64s, rows: RowBytes, versions: Int64s) -> None:
        """Put rows of a checkpoint into the tier, distinct ids, before the first reservation; RuntimeError after it."""
        if self._residency.began:
            raise RuntimeError("rows can be loaded only before the first batch was reserved")
        self.spec_of(table)
        self.tier.put(table, ids, rows, versions)

    def stats(self) -> dict[str, Any]:
        """Figures for a progress display and the report. Looks at every slot: not for every step."""
        return report(self._residency, self._snapshots) | ({} if self.dynamic is None else self.dynamic.figures())
