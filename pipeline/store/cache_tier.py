"""The cache tier: bounded host memory as a write-back cache over any other tier, such as DRAM over the SSD.

Why a reader always finds a row. Where a row that was put is, rules over time:

1. ``put`` makes rows DIRTY here, under the lock of the pool.
2. A DIRTY row is copied, put below, and only then called CLEAN, if it was not put again since. Only CLEAN rows leave. So a
   row that is not here is below, in the version of its last put, and nothing removes it from there but ``delete``.
3. ``delete`` forgets rows below first, then here: what is below may be old, and must not be seen again.
4. ``get`` looks here first, under the lock of the pool, and then below for what was not here, under no lock. At the first
   look the row below was the newest; whatever is put below later is newer. So it finds the row, whole, in a version no
   older than that of the last put that returned before the call. Looking below first could miss the row in both.

Locks: ``_writing`` > ``pool.lock``. ``_writing`` is held by whoever writes below (a write-back, ``delete``), so that an
older version never comes after a newer one; and by ``count``, so that each row is counted once. Checkpoints put rows below
through ``saved``, under it: what is dirty here, and not younger, is clean then, so that it is not put over them later. A put
takes it only when no clean row can leave. No lock is held while the tier below is read, and only ``_writing`` while it is
written.

Rows that were read from below are not admitted. Whoever reads a row takes it into L1, where a second copy is of no use, and
puts it here when it leaves, if it was changed; a row that leaves L1 unchanged was put when L1 cleaned it. Snapshots
read everything once. So the memory holds other rows than L1, as far as it can.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from cuda.backend import forbid_event_loop
from cuda.plan import Int32s
from pipeline.rows.spec import TableSpec
from pipeline.store.cache_cleaner import Cleaner
from pipeline.store.cache_pool import CachePool
from pipeline.store.cache_size import bytes_for, rows_within
from pipeline.store.errors import UnknownTable
from pipeline.store.policy import find_policy
from pipeline.store.row_blocks import aligned_rows
from pipeline.store.tier import Bools, GetsSaved, Int64s, RowBytes, Tier, TierRows, unsaved_ids

PIECE_ROWS: Final = 4096
"""Rows copied under one hold of the pool's lock."""
CLEAN_ROWS: Final = 2048
"""Rows put below at once, when cleaning ahead or flushing."""
CLEAN_CHUNKS: Final = 8
"""Such chunks that one call of ``clean_ahead`` writes at most."""


class CacheTier:
    """Implements ``Tier`` in at most ``max_bytes`` over ``below``, which it opens and closes.

    ``policy`` as in ``store.policy``; it sees a row's puts as its uses. ``clean_ahead``: share of the rows, next to leave, that
    a thread keeps clean, so that puts seldom wait for the tier below; 0: none, and no thread.
    """

    def __init__(self, below: Tier, max_bytes: int, policy: str = "lru", clean_ahead: float = 0.05) -> None:
        self.below, self.max_bytes, self.name = below, max_bytes, f"dram over {below.name}"
        self.gets_at_once = getattr(below, "gets_at_once", 1)
        self._policy, self._clean_share = policy, clean_ahead
        self._specs: tuple[TableSpec, ...] = ()
        self._tables: dict[str, int] = {}
        self._writing, self._counting = threading.Lock(), threading.Lock()
        self._cleaner = Cleaner(self.clean_ahead, below.name)
        self._hits = self._misses = self._written_back = self._cleaned_ahead = 0

    def open(self, specs: Sequence[TableSpec]) -> None:
        """Raises CacheTooSmall, CacheTooLarge, and what the tier below raises."""
        rows = rows_within(specs, self.max_bytes)
        self.below.open(specs)
        self._pool = CachePool(specs, rows, find_policy(self._policy), int(rows * self._clean_share))
        self._specs, self._tables = tuple(specs), {spec.name: number for number, spec in enumerate(specs)}
        self._cleaner = Cleaner(self.clean_ahead, self.below.name)
        if self._pool.window:
            self._cleaner.start()

    def get(self, table: str, ids_n: Int64s) -> TierRows:
        """See ``Tier.get``. Raises what the tier below raises."""
        number, ids_n = self._enter("get", table), np.ascontiguousarray(ids_n, dtype=np.int64)
        count, row_bytes = ids_n.shape[0], self._specs[number].layout.row_bytes
        pieces = range(0, count, PIECE_ROWS)
        copies = [(start, *self._pool.copy(number, ids_n[start : start + PIECE_ROWS])) for start in pieces]
        found_n = np.zeros(count, dtype=np.bool_)
        for start, here, _, _ in copies:
            found_n[start + here] = True
        missing = np.flatnonzero(~found_n)
        self._count_reads(count - missing.shape[0], missing.shape[0])
        if missing.shape[0] == count:
            return self.below.get(table, ids_n)
        rows_nb, versions_n = np.empty((count, row_bytes), dtype=np.uint8), np.empty(count, dtype=np.int64)
        for start, here, rows, versions in copies:
            rows_nb[start + here], versions_n[start + here] = rows[:, :row_bytes], versions
        if missing.shape[0]:
            got = self.below.get(table, ids_n[missing])
            rows_nb[missing], versions_n[missing], found_n[missing] = got.rows_nb, got.versions_n, got.found_n
        return TierRows(rows_nb, versions_n, found_n)

    def put(self, table: str, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s) -> None:
        """See ``Tier.put``. Waits for the tier below when too little is clean. Raises what that raises, and CleaningFailed
        for what it raised while the thread cleaned ahead: some of these rows are taken then, and no row is lost.
        """
        number = self._enter("put", table)
        self._cleaner.check()
        ids_n, versions_n = np.ascontiguousarray(ids_n, np.int64), np.ascontiguousarray(versions_n, np.int64)
        rows_nb = aligned_rows(rows_nb[:, : self._pool.row_bytes])
        piece_rows = min(PIECE_ROWS, self._pool.num_slots)
        for start in range(0, ids_n.shape[0], piece_rows):
            part = slice(start, start + piece_rows)
            while (dirty := self._pool.try_put(number, ids_n[part], rows_nb[part], versions_n[part])).shape[0]:
                self._write_back(dirty)
        if self._pool.machine.num_free < self._pool.window:
            self._cleaner.wake()

    def clean_ahead(self) -> int:
        """Put dirty rows below that are next to leave, a bounded number; returns how many."""
        cleaned = 0
        for _ in range(CLEAN_CHUNKS):
            dirty = self._pool.next_dirty(CLEAN_ROWS)
            if not dirty.shape[0]:
                break
            cleaned += self._write_back(dirty, ahead=True)
        return cleaned

    def _write_back(self, slots_d: Int32s, ahead: bool = False) -> int:
        """Put those of these rows below that are dirty, then call them clean; returns how many were put."""
        with self._writing:
            before = self._written_back
            for rows in self._pool.take_dirty(slots_d):
                self.below.put(self._specs[rows.table].name, rows.ids_d, rows.rows_db, rows.versions_d)
                self._pool.cleaned(rows)
                self._written_back += int(rows.ids_d.shape[0])
            written = self._written_back - before
            self._cleaned_ahead += written * ahead
        return written

    def delete(self, table: str, ids_n: Int64s) -> None:
        number, ids_n = self._enter("delete", table), np.unique(np.asarray(ids_n, dtype=np.int64))
        with self._writing:
            self.below.delete(table, ids_n)
            self._pool.drop(number, ids_n)

    def holds(self, table: str, ids_n: Int64s) -> Bools:
        number, ids_n = self._enter("holds", table), np.ascontiguousarray(ids_n, dtype=np.int64)
        here_n = self._pool.holds(number, ids_n)
        return here_n | self.below.holds(table, ids_n)

    def ids(self, table: str) -> Int64s:
        """See ``Tier.ids``. What is only here is listed first: it may be put below meanwhile, and is met twice then."""
        number = self._enter("ids", table)
        only_here = np.sort(self._only_here(table, number))
        below = self.below.ids(table)
        return np.concatenate([below, _without(only_here, below)])

    def count(self, table: str) -> int:
        number = self._enter("count", table)
        with self._writing:
            while True:
                below = self.below.count(table)
                count = below + int(self._only_here(table, number).shape[0])
                if self.below.count(table) == below:  # a checkpoint saved nothing below meanwhile
                    return count

    def unsaved(self, table: str, since: int, /) -> Int64s:
        """See ``ListsUnsaved``. A dirty row that is put below after the first look is met at the second."""
        number = self._enter("unsaved", table)
        here = self._pool.dirty_ids(number)
        return np.concatenate([here, unsaved_ids(self.below, table, since)])

    def saved(self, table: str, ids_n: Int64s, versions_n: Int64s, save: Callable[[], None], /) -> None:
        """See ``GetsSaved``. A row may have been saved from L1, and be dirty here as it was when it left L1 the last time."""
        number = self._enter("saved", table)
        if not isinstance(self.below, GetsSaved):
            save()
            return
        with self._writing:
            self.below.saved(table, ids_n, versions_n, save)
            self._pool.saved(number, ids_n, versions_n)

    def _only_here(self, table: str, number: int) -> Int64s:
        """Ids of rows that are not below, in any version; some that were put below meanwhile may be missing, or among them."""
        dirty = self._pool.dirty_ids(number)
        return dirty[~self.below.holds(table, dirty)]

    def flush(self) -> None:
        """Put below what was put here before the call, and flush that. Raises as ``put`` does."""
        forbid_event_loop("CacheTier.flush")
        self._cleaner.check()
        dirty = self._pool.dirty_slots()
        for start in range(0, dirty.shape[0], CLEAN_ROWS):
            self._write_back(dirty[start : start + CLEAN_ROWS])
        self.below.flush()

    def stats(self) -> Mapping[str, Any]:
        """Figures for the report. A miss is a row that is below or nowhere; one that is put below twice is written back twice."""
        pool = self._pool
        return {
            "max_bytes": self.max_bytes,
            "held_bytes": bytes_for(self._specs, pool.num_slots),
            "max_rows": pool.num_slots,
            "rows": pool.num_rows,
            "dirty_rows": pool.num_dirty,
            "hits": self._hits,
            "misses": self._misses,
            "written_back": self._written_back,
            "cleaned_ahead": self._cleaned_ahead,
        }

    def close(self) -> None:
        """Stop the thread, then close the tier below; what was not flushed is gone. May be called twice."""
        self._cleaner.close()
        self.below.close()
        if self._tables:
            self._tables = {}
            self._pool.close()

    def _count_reads(self, hits: int, misses: int) -> None:
        with self._counting:
            self._hits += hits
            self._misses += misses

    def _enter(self, what: str, table: str) -> int:
        forbid_event_loop(f"CacheTier.{what}")
        number = self._tables.get(table)
        if number is None:
            raise UnknownTable(table, list(self._tables))
        return number


def _without(sorted_ids: Int64s, others: Int64s) -> Int64s:
    """Ids that are not among ``others``, which are many more, in any order."""
    if not sorted_ids.shape[0]:
        return sorted_ids
    at_n = np.minimum(np.searchsorted(sorted_ids, others), sorted_ids.shape[0] - 1)
    left: Bools = np.ones(sorted_ids.shape[0], dtype=np.bool_)
    left[at_n[sorted_ids[at_n] == others]] = False
    return sorted_ids[left]
