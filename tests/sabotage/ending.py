"""Small sabotages of rows that end: each removes one protection. The store's stress with an expiry has to catch each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from cuda.plan import Int32s
from pipeline.rowlog.log.log_table import LogTable
from pipeline.store.below import Below
from pipeline.store.coverage import Coverage
from pipeline.store.dram import DramTier
from pipeline.store.residency import Residency
from pipeline.store.snapshot import Snapshot
from pipeline.store.snapshots import Snapshots
from pipeline.store.ssd import SsdTier
from tests.sabotage.store import nothing


@contextmanager
def savenothing_that_ends() -> Iterator[None]:
    """Rows that end are forgotten at once, whatever a snapshot needs of them."""
    with patch.object(Snapshots, "before_end", nothing):
        yield


@contextmanager
def save_a_row_twice() -> Iterator[None]:
    """A row that has ended counts as one that a snapshot saw so."""
    with patch.object(Coverage, "end", nothing):
        yield


@contextmanager
def forget_only_in_l1() -> Iterator[None]:
    """The tier keeps rows that have ended."""
    with patch.object(DramTier, "delete", nothing), patch.object(SsdTier, "delete", nothing):
        yield


@contextmanager
def write_back_what_has_ended() -> Iterator[None]:
    """Dirty rows that have ended go to the tier when they leave."""
    honest = Below.put_back

    def all_of_them(self: Below, slots_m: Int32s) -> None:
        self._forgets = False
        honest(self, slots_m)

    with patch.object(Below, "put_back", all_of_them):
        yield


@contextmanager
def let_loads_overwrite() -> Iterator[None]:
    """A row that is on its way into L1 while it ends comes as it was."""
    with patch.object(Residency, "on_their_way", lambda *_arguments: []):
        yield


@contextmanager
def list_only_what_is_left() -> Iterator[None]:
    """A snapshot does not list rows that have ended since."""
    honest = Snapshot.ids

    def without_saved(self: Snapshot, table: str) -> Any:
        forgets, self._residency.forgets = self._residency.forgets, False
        try:
            return honest(self, table)
        finally:
            self._residency.forgets = forgets

    with patch.object(Snapshot, "ids", without_saved):
        yield


IN_MEMORY: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    sabotage.__name__: sabotage
    for sabotage in (
        savenothing_that_ends,
        save_a_row_twice,
        forget_only_in_l1,
        write_back_what_has_ended,
        list_only_what_is_left,
    )
}


@contextmanager
def burynothing() -> Iterator[None]:
    """Rows that are forgotten leave no record that says so: what is left of them in segments is read again."""
    with patch.object(LogTable, "bury", nothing):
        yield


ON_DISK: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    sabotage.__name__: sabotage for sabotage in (burynothing, let_loads_overwrite)
}
"""With checkpoints of a row log going on."""
