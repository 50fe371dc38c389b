"""The host twin: ``cuda.backend.Backend`` on the processor, in Numba.

L1 is one array of bytes, a row per slot; versions lie behind the rows or beside them. Methods here check, allocate and launch; the
work is in the kernels of this room. Results never depend on the number of threads, on slots, or on who else is calling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from cuda.backend import RowBytes, UpdateRule, forbid_event_loop
from cuda.host import change, cuts, gather, gradients, rows, slotmap, update
from cuda.host.batch import NO_WEIGHTS, Batch, describe, plain
from cuda.host.memory import allocate
from cuda.host.meta import find_last
from cuda.host.recycle import Recycler
from cuda.host.tables import TableSet, stride_for
from cuda.host.threads import use_threads
from cuda.host.unique import Deduplicator
from cuda.plan import MEAN, BatchIds, BatchMeta, Float32s, Int32s, Int64s, Matrix, RowPlaces, SlotPlan, UniqueIds
from pipeline.rows.room import RowRoom
from pipeline.rows.spec import TableSpec
from pipeline.rows.version import MAX_STEP

FEW = 4096
"""So many rows one thread reads, writes or finds sooner than several could be woken; and it leaves theirs to others."""


class HostBackend:
    """See ``cuda.backend.Backend`` for what each method promises. ``threads``: how many threads one call may use, at least 1."""

    name = "host"
    few = FEW

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"threads is {threads}; a backend needs at least 1")
        self.num_slots = 0
        self.row_bytes = 0
        self.threads = threads
        self._recycler = Recycler()
        self._deduplicator = Deduplicator(threads, self._recycler)
        self._is_open = False

    def open(self, specs: Sequence[TableSpec], num_slots: int) -> None:
        forbid_event_loop("HostBackend.open")
        assert specs, "a pool needs tables"
        assert num_slots >= 1, f"a pool needs slots, got {num_slots}"
        self._tables = TableSet(specs)
        self.row_bytes, self.num_slots = self._tables.row_bytes, num_slots
        self._rows_sb = allocate(num_slots, stride_for(self.row_bytes))
        self._pool = rows.make_pool(self._rows_sb, self.row_bytes)
        self._entries_c2 = np.full((slotmap.capacity_for(num_slots), 2), slotmap.EMPTY, np.int64)
        self._pair_tables_s = np.full(num_slots, -1, np.int32)
        self._pair_ids_s = np.zeros(num_slots, np.int64)
        self._marks_s, self._mark = np.zeros(num_slots, np.int32), 0
        self._is_open = True

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            del self._rows_sb, self._pool, self._entries_c2, self._pair_tables_s, self._pair_ids_s, self._marks_s

    def deduplicate(self, batch: BatchIds) -> UniqueIds:
        forbid_event_loop("HostBackend.deduplicate")
        use_threads(self.threads)
        return self._deduplicator.find(batch)

    def last_values(self, batch: BatchIds, unique: UniqueIds, meta: BatchMeta) -> tuple[Int64s, RowBytes]:
        forbid_event_loop("HostBackend.last_values")
        return find_last(batch, unique, meta)

    def locate(self, tables_u: Int32s, ids_u: Int64s) -> Int32s:
        self._enter("locate")
        assert tables_u.shape == ids_u.shape
        tables_u, ids_u = plain(tables_u, np.int32), plain(ids_u, np.int64)
        if ids_u.shape[0] <= self.few:
            slots_u = np.empty(ids_u.shape[0], np.int32)
            slotmap.locate_few(self._entries_c2, tables_u, ids_u, slots_u)
        else:
            (slots_u,) = self._recycler.arrays((np.int32, ids_u.shape[0]))
            slotmap.locate(self._entries_c2, tables_u, ids_u, slots_u, self.threads)
        return slots_u

    def admit(self, slots_m: Int32s, tables_m: Int32s, ids_m: Int64s) -> None:
        self._enter("admit")
        slots_m = self._checked(slots_m)
        assert slots_m.shape == tables_m.shape == ids_m.shape
        admitted = slotmap.admit(*self._maps(), slots_m, plain(tables_m, np.int32), plain(ids_m, np.int64))
        assert admitted, "a pair that is already resident, or a slot named twice, cannot be admitted"

    def forget(self, slots_m: Int32s) -> None:
        self._enter("forget")
        slots_m = self._checked(slots_m)
        slotmap.forget(*self._maps(), slots_m)

    def pairs(self, slots_m: Int32s) -> tuple[Int32s, Int64s]:
        self._enter("pairs")
        return self._pair_tables_s[slots_m], self._pair_ids_s[slots_m]

    def read_rows(self, slots_m: Int32s) -> tuple[RowBytes, Int64s]:
        self._enter("read_rows")
        slots_m = self._checked(slots_m)
        rows_mb = np.empty((slots_m.shape[0], self.row_bytes), np.uint8)
        versions_m = np.empty(slots_m.shape[0], np.int64)
        if slots_m.shape[0] <= self.few:
            rows.read_few_rows(self._pool, slots_m, rows_mb, versions_m)
        else:
            rows.read_rows(self._pool, slots_m, rows_mb, versions_m, self.threads)
        return rows_mb, versions_m

    def read_rows_into(self, slots_n: Int32s, head_nb: RowBytes, tail_nb: RowBytes, versions_n: Int64s) -> None:
        self._enter("read_rows_into")
        slots_n = self._checked(slots_n, least=-1)
        assert slots_n.shape[0] == head_nb.shape[0] == tail_nb.shape[0] == versions_n.shape[0]
        head, tail = head_nb.shape[1], tail_nb.shape[1]
        assert head + tail <= self.row_bytes, f"rows of {head} + {tail} bytes; the pool's have {self.row_bytes}"
        assert head % 4 == tail % 4 == 0, f"rows of {head} + {tail} bytes; need multiples of 4"
        rows.read_apart(self._pool, slots_n, head_nb, tail_nb, versions_n)

    def read_versions(self, slots_m: Int32s) -> Int64s:
        self._enter("read_versions")
        return self._pool.versions[slots_m.astype(np.int64) * self._pool.version_step]

    def row_places(self, slots_m: Int32s) -> RowPlaces:
        self._enter("row_places")
        slots_m = self._checked(slots_m).astype(np.int64)
        versions = self._pool.versions.ctypes.data + np.int64(8 * self._pool.version_step) * slots_m
        return RowPlaces(self._pool.base + np.int64(self._pool.stride) * slots_m, versions)

    def write_rows(self, slots_m: Int32s, rows_mb: RowBytes, versions_m: Int64s) -> None:
        self._enter("write_rows")
        slots_m = self._checked(slots_m)
        assert rows_mb.shape[0] == slots_m.shape[0] == versions_m.shape[0]
        assert rows_mb.shape[1] <= self.row_bytes, f"rows of {rows_mb.shape[1]} bytes; the pool's have {self.row_bytes}"
        assert rows_mb.shape[1] % 4 == 0, f"rows of {rows_mb.shape[1]} bytes; need a multiple of 4"
        rows_mb, versions_m = plain(rows_mb, np.uint8), plain(versions_m, np.int64)
        if slots_m.shape[0] <= self.few:
            rows.write_few_rows(self._pool, slots_m, rows_mb, versions_m)
        else:
            rows.write_rows(self._pool, slots_m, rows_mb, versions_m, self.threads)

    def write_part(self, slots_m: Int32s, start: int, values_mb: RowBytes) -> None:
        self._enter("write_part")
        slots_m, values_mb = self._checked(slots_m), plain(values_mb, np.uint8)
        count, width = values_mb.shape
        assert count == slots_m.shape[0]
        assert 0 <= start <= start + width <= self.row_bytes, f"bytes {start} .. {start + width}"
        if count <= self.few:
            rows.write_few_parts(self._pool, slots_m, start, values_mb)
        else:
            rows.write_parts(self._pool, slots_m, start, values_mb, self.threads)

    def gather_pool(self, plan: SlotPlan, outs_f: Sequence[Matrix]) -> None:
        self._enter("gather_pool")
        batch = describe(plan, outs_f, self._tables.kinds_t)
        gather.gather(self._pool, batch, self._tables.rooms(self.threads), self.threads)

    def sum_gradients(self, plan: SlotPlan, grads_f: Sequence[Matrix | None]) -> Float32s:
        """Zeros behind a row's dim, and where no feature of a row took part."""
        self._enter("sum_gradients")
        terms = self._terms(plan, self._gradients(plan, grads_f))
        sums_ud = np.empty((plan.unique.count, int(self._tables.dims_t.max())), np.float32)
        gradients.sum_rows(terms, sums_ud, self.threads)
        return sums_ud

    def weight_gradients(self, plan: SlotPlan, grads_f: Sequence[Matrix | None]) -> Float32s:
        """Zero where the feature took no part."""
        self._enter("weight_gradients")
        batch, rooms = self._gradients(plan, grads_f), self._tables.rooms(self.threads)
        result_n = np.empty(plan.batch.ids_n.shape[0], np.float32)
        gradients.weight_gradients(self._pool, batch, self._terms(plan, batch), result_n, rooms, self.threads)
        return result_n

    def update(
        self, plan: SlotPlan, grads_f: Sequence[Matrix | None], rules_t: Sequence[UpdateRule], version: int
    ) -> Int64s:
        self._enter("update")
        rules = self._tables.rules(rules_t, version & MAX_STEP)
        grads_f = self._clipped(plan, grads_f, rules_t)
        terms = self._terms(plan, self._gradients(plan, grads_f))
        slots_u, ids_u = plain(plan.slots_u, np.int32), plain(plan.unique.ids_u, np.int64)
        changed = update.Rows(slots_u, ids_u, version, version & MAX_STEP)
        bad_wt = np.zeros((self.threads, len(rules_t)), np.int64)
        rooms = self._tables.update_rooms(self.threads)
        update.update(self._pool, terms, rules, changed, bad_wt, rooms, self.threads)
        return cast(Int64s, bad_wt.sum(axis=0))

    def keep_weights(self, plan: SlotPlan) -> Float32s:
        self._enter("keep_weights")
        width = self._tables.width
        (kept,) = self._recycler.arrays((np.float32, plan.unique.count * width))
        kept_ud = kept.reshape(-1, width)
        change.keep(
            self._pool, change.compared(plan, kept_ud, self._tables), self._tables.rooms(self.threads), self.threads
        )
        return kept_ud

    def relative_change(self, plan: SlotPlan, kept_ud: Float32s) -> Float32s:
        self._enter("relative_change")
        changes_u, compared = np.empty(plan.unique.count, np.float32), change.compared(plan, kept_ud, self._tables)
        change.compare(self._pool, compared, changes_u, self._tables.rooms(self.threads), self.threads)
        return changes_u

    def encode_rows(self, slots_m: Int32s, codec: str, table: int) -> RowBytes:
        from pipeline.rows.codec import find_codec

        self._enter("encode_rows")
        layout = self._tables.layouts[table]
        rows_mb, _ = self.read_rows(slots_m)
        return find_codec(codec).encode(layout.singles(rows_mb, layout.columns[0].name))

    def find_distinct(self, ids_m: Int64s, starts_gt: Int64s) -> tuple[Int32s, Int64s] | None:
        self._enter("find_distinct")
        if self._mark == np.iinfo(np.int32).max:
            self._marks_s[:], self._mark = 0, 0
        self._mark += 1
        slots_m, counts_t = np.empty(ids_m.shape[0], np.int32), np.empty(starts_gt.shape[1] - 1, np.int64)
        ids_m, starts_gt = plain(ids_m, np.int64), plain(starts_gt, np.int64)
        found = cuts.find_distinct(self._entries_c2, ids_m, starts_gt, self._marks_s, self._mark, slots_m, counts_t)
        return None if found < 0 else (slots_m[:found], counts_t)

    def encode_distinct(
        self, slots_n: Int32s, counts_t: Int64s, codecs_t: Sequence[str], versions: tuple[int, int], room: RowRoom
    ) -> tuple[int, int]:
        self._enter("encode_distinct")
        slots_n, tables = plain(slots_n, np.int32), self._tables
        assert int(counts_t.sum()) == slots_n.shape[0], f"{slots_n.shape[0]} slots of tables that have {counts_t}"
        digest, strangers = cuts.encode_slots(
            self._pool,
            self._rows_sb.reshape(-1).view(np.uint32),
            self._pair_ids_s,
            slots_n,
            plain(counts_t, np.int64),
            tables.dims_t,
            tables.kinds_t,
            *tables.codecs(codecs_t),
            tables.keys_t,
            *versions,
            room.content_b,
            room.ids_at,
            room.rows_at,
            room.versions_at,
        )
        return int(digest), int(strangers)

    def _enter(self, what: str) -> None:
        forbid_event_loop(f"HostBackend.{what}")
        assert self._is_open, f"{what} on a backend that is not open"
        use_threads(self.threads)

    def _maps(self) -> tuple[slotmap.Entries, Int32s, Int64s]:
        return self._entries_c2, self._pair_tables_s, self._pair_ids_s

    def _checked(self, slots_m: Int32s, least: int = 0) -> Int32s:
        if slots_m.shape[0]:
            low, high = int(slots_m.min()), int(slots_m.max())
            assert least <= low <= high < self.num_slots, f"slots {low} .. {high} outside 0 .. {self.num_slots - 1}"
        return cast(Int32s, plain(slots_m, np.int32))

    def _clipped(
        self, plan: SlotPlan, grads_f: Sequence[Matrix | None], rules_t: Sequence[UpdateRule]
    ) -> Sequence[Matrix | None]:
        """The gradients, those of tables that limit them as clipped copies."""
        if not any(rule.max_gradient for rule in rules_t):
            return grads_f
        limits = [rules_t[table].max_gradient for table in plan.batch.features.tables_f.tolist()]
        return [
            gradients.clipped(grad, limit, self.threads) if grad is not None and limit > 0 else grad
            for grad, limit in zip(grads_f, limits, strict=True)
        ]

    def _gradients(self, plan: SlotPlan, grads_f: Sequence[Matrix | None]) -> Batch:
        return describe(plan, grads_f, self._tables.kinds_t)

    def _terms(self, plan: SlotPlan, batch: Batch) -> gradients.Terms:
        num_ids = plan.batch.ids_n.shape[0]
        scaled = plan.batch.weights_n is not None or bool((plan.batch.features.poolings_f == MEAN).any())
        addresses_n, factors_n = self._recycler.arrays((np.int64, num_ids), (np.float32, num_ids if scaled else 0))
        unique = plan.unique
        terms = gradients.Terms(
            num_rows=unique.count,
            num_ids=unique.occurrences_n.shape[0],
            scaled=scaled,
            addresses_n=addresses_n,
            factors_n=factors_n if scaled else NO_WEIGHTS,
            tables_u=plain(unique.tables_u, np.int32),
            starts_u=plain(unique.occurrence_start_u, np.int64),
            occurrences_n=plain(unique.occurrences_n, np.int32),
            dims_t=self._tables.dims_t,
        )
        gradients.find_terms(batch, terms, self.threads)
        return terms
