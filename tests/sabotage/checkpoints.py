"""Small sabotages of what the store saves for a checkpoint: the lives of ``test_tiers_and_checkpoints`` have to catch every one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from pipeline.rowlog.log.table_mark import TableMark
from pipeline.store import CacheTier, DramTier, save_changed
from pipeline.store.residency import Residency
from pipeline.store.tier import unsaved_ids
from tests.store import test_tiers_and_checkpoints as lives

NO_IDS = np.empty(0, dtype=np.int64)


@contextmanager
def miss_rows_that_are_dirty_in_l1() -> Iterator[None]:
    def none(self: Residency, _since: int) -> Any:
        return dict.fromkeys(self.tables, NO_IDS)

    with patch.object(Residency, "unsaved", none):
        yield


@contextmanager
def miss_rows_that_are_dirty_in_the_cache() -> Iterator[None]:
    def below(self: CacheTier, table: str, since: int) -> Any:
        return unsaved_ids(self.below, table, since)

    with patch.object(CacheTier, "unsaved", below):
        yield


@contextmanager
def miss_rows_that_went_down_after_the_mark() -> Iterator[None]:
    with patch.object(TableMark, "put_since", lambda _self, _footer_ids: iter(())):
        yield


@contextmanager
def take_a_row_of_the_last_checkpoints_step_for_saved() -> Iterator[None]:
    unsaved = DramTier.unsaved

    def later(self: DramTier, table: str, since: int) -> Any:
        return unsaved(self, table, since + 5)

    with patch.object(DramTier, "unsaved", later):
        yield


@contextmanager
def save_rows_as_they_are_now() -> Iterator[None]:
    """Not as they stood at the mark."""

    def careless(store: Any, _snapshot: Any, into: Any, since: int) -> int:
        with store.freeze("all", blocking=True) as now:
            return save_changed(store, now, into, since)

    with patch.object(lives, "save_changed", careless):
        yield


SABOTAGES: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    sabotage.__name__: sabotage
    for sabotage in (
        miss_rows_that_are_dirty_in_l1,
        miss_rows_that_are_dirty_in_the_cache,
        miss_rows_that_went_down_after_the_mark,
        take_a_row_of_the_last_checkpoints_step_for_saved,
        save_rows_as_they_are_now,
    )
}
