"""Small sabotages of the cache tier: each removes one protection. ``tests/store/cache_stress.py`` has to catch each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np

from cuda.plan import Int32s, Int64s
from pipeline.store.cache_pool import CachePool, DirtyRows
from pipeline.store.cache_tier import CacheTier
from pipeline.store.slots import DIRTY
from pipeline.store.tier import TierRows

PAUSE_S = 0.0005


@contextmanager
def drop_a_dirty_row_as_if_it_were_clean() -> Iterator[None]:
    """Rows leave, and nobody puts them below."""

    def nothing(self: CacheTier, slots_d: Int32s, ahead: bool = False) -> int:  # noqa: ARG001
        for rows in self._pool.take_dirty(slots_d):
            self._pool.cleaned(rows)
        return 0

    with patch.object(CacheTier, "_write_back", nothing):
        yield


@contextmanager
def forget_a_dirty_victim_before_it_was_put_below() -> Iterator[None]:
    """Rows may leave as soon as they were copied; they are below a moment later."""

    def early(self: CacheTier, slots_d: Int32s, ahead: bool = False) -> int:  # noqa: ARG001
        with self._writing:
            taken = self._pool.take_dirty(slots_d)
            for rows in taken:
                self._pool.cleaned(rows)
            time.sleep(PAUSE_S)
            for rows in taken:
                self.below.put(self._specs[rows.table].name, rows.ids_d, rows.rows_db, rows.versions_d)
        return sum(rows.ids_d.shape[0] for rows in taken)

    with patch.object(CacheTier, "_write_back", early):
        yield


@contextmanager
def call_a_row_clean_that_was_put_again() -> Iterator[None]:
    """A write-back cleans whatever is in the slot by now."""

    def careless(self: CachePool, rows: DirtyRows) -> None:
        with self.lock:
            slots = rows.slots_d[self.machine.arrays.states_s[rows.slots_d] == DIRTY]
            self.machine.cleaned(slots)
            self.num_dirty -= int(slots.shape[0])

    with patch.object(CachePool, "cleaned", careless):
        yield


@contextmanager
def forget_that_a_row_was_put_again() -> Iterator[None]:
    """A clean row that is put again stays clean."""
    put = CachePool.try_put

    def forgetful(self: CachePool, table: int, ids_u: Int64s, *rest: Any) -> Int32s:
        with self.lock:
            slots_u = self._locate(table, ids_u)
            were_clean = slots_u[slots_u >= 0]
            were_clean = were_clean[self.machine.arrays.states_s[were_clean] != DIRTY]
        dirty = put(self, table, ids_u, *rest)
        if not dirty.shape[0]:
            with self.lock:
                now_dirty = were_clean[self.machine.arrays.states_s[were_clean] == DIRTY]
                self.machine.cleaned(now_dirty)
                self.num_dirty -= int(now_dirty.shape[0])
        return dirty

    with patch.object(CachePool, "try_put", forgetful):
        yield


@contextmanager
def look_below_first() -> Iterator[None]:
    """A row that comes here or leaves between the two looks is found in neither place, or is an old one."""
    get = CacheTier.get

    def below_first(self: CacheTier, table: str, ids_n: Int64s) -> TierRows:
        below = self.below.get(table, ids_n)

        class Before:
            def get(self, _table: str, some_n: Int64s) -> TierRows:
                order = np.argsort(ids_n)
                at = order[np.searchsorted(ids_n, some_n, sorter=order)]
                return TierRows(below.rows_nb[at], below.versions_n[at], below.found_n[at])

        bare = object.__new__(CacheTier)
        bare.__dict__.update(self.__dict__, below=Before())
        return get(bare, table, ids_n)

    with patch.object(CacheTier, "get", below_first):
        yield


@contextmanager
def delete_here_before_below() -> Iterator[None]:
    """Between the two, the old version below is seen again."""

    def here_first(self: CacheTier, table: str, ids_n: Int64s) -> None:
        ids_n = np.unique(ids_n)
        with self._writing:
            self._pool.drop(self._tables[table], ids_n)
            time.sleep(PAUSE_S)
            self.below.delete(table, ids_n)

    with patch.object(CacheTier, "delete", here_first):
        yield


@contextmanager
def write_below_in_any_order() -> Iterator[None]:
    """Two threads write the same row below, and the older version may come last."""
    write, delete = CacheTier._write_back, CacheTier.delete

    def unordered(name: str, honest: Callable[..., Any]) -> Any:
        def method(self: CacheTier, *arguments: Any, **named: Any) -> Any:
            bare = object.__new__(CacheTier)
            bare.__dict__.update(self.__dict__, _writing=nullcontext())
            return honest(bare, *arguments, **named)

        return patch.object(CacheTier, name, method)

    with unordered("_write_back", write), unordered("delete", delete):
        yield


@contextmanager
def count_every_dirty_row_as_new() -> Iterator[None]:
    """A row that is here and below is counted twice."""
    with patch.object(CacheTier, "_only_here", lambda self, _table, number: self._pool.dirty_ids(number)):
        yield


@contextmanager
def list_what_is_below_first() -> Iterator[None]:
    """A row that is put below during a listing is in neither half of it."""

    def ids(self: CacheTier, table: str) -> Int64s:
        below = self.below.ids(table)
        return np.concatenate([below, self._only_here(table, self._tables[table])])

    with patch.object(CacheTier, "ids", ids):
        yield


SABOTAGES: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    sabotage.__name__: sabotage
    for sabotage in (
        drop_a_dirty_row_as_if_it_were_clean,
        forget_a_dirty_victim_before_it_was_put_below,
        call_a_row_clean_that_was_put_again,
        forget_that_a_row_was_put_again,
        look_below_first,
        delete_here_before_below,
        write_below_in_any_order,
        count_every_dirty_row_as_new,
        list_what_is_below_first,
    )
}
