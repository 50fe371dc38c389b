"""The Tier interface: a place below L1 where rows live.

A tier holds packed rows with their versions, by table name and id. Methods block and may be called from any thread but the event
loop's, several at once. A tier that gains by it has an attribute ``gets_at_once``: of so many tables a batch's rows are asked for
at the same time. What ``put`` has taken is visible to every ``get`` that starts after it returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from cuda.plan import Int32s, RowPlaces
from pipeline.rows.spec import TableSpec

RowBytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TierRows:
    """Answer of ``Tier.get``, in the order asked. Where ``found_n`` is False the row is absent and its bytes are zeros."""

    rows_nb: RowBytes
    versions_n: Int64s
    found_n: Bools


class Tier(Protocol):
    name: str

    def open(self, specs: Sequence[TableSpec]) -> None:
        """Make ready for these tables."""

    def get(self, table: str, ids_n: Int64s) -> TierRows:
        """Read rows; duplicates allowed."""

    def put(self, table: str, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s) -> None:
        """Write or replace rows; ids distinct. ``rows_nb`` [n, at least the table's row_bytes]."""

    def delete(self, table: str, ids_n: Int64s) -> None:
        """Forget rows; absent ids are ignored."""

    def holds(self, table: str, ids_n: Int64s) -> Bools:
        """Which of these rows are held, without reading them; duplicates allowed."""

    def ids(self, table: str) -> Int64s:
        """All ids held, in any order: a copy."""

    def count(self, table: str) -> int:
        """Number of rows held."""

    def flush(self) -> None:
        """Make what was put durable, where the tier is."""

    def close(self) -> None:
        """Free everything. May be called twice."""


@runtime_checkable
class ListsUnsaved(Protocol):
    """What a tier may know beside ``Tier``: which rows the checkpoint that is being written has to save."""

    def unsaved(self, table: str, since: int, /) -> Int64s:
        """Ids, in any order, duplicates and more of them allowed, of all rows that this tier held when the checkpoint began,
        or got since, and that changed after packed version ``since``, unless the tier itself names them to the checkpoint.
        """


@runtime_checkable
class MovesRows(Protocol):
    """What a tier in the host's memory may have beside ``Tier``: rows of many tables in one call, straight from where they lie, or to
    there. ``tables_n`` are numbers in the order in which ``open`` named the tables.

    A tier that inherits it, and whose own ``get`` or ``put`` is to be called, sets ``get_rows = None``.
    """

    def get_rows(self, tables_n: Int32s, ids_n: Int64s, at: RowPlaces, /) -> Bools:
        """As ``get``, of distinct pairs. Which are held; where one is not, nothing is written."""

    def put_rows(self, tables_n: Int32s, ids_n: Int64s, at: RowPlaces, /) -> None:
        """As ``put``, of distinct pairs: all of them, or none if it raises."""


@runtime_checkable
class GetsSaved(Protocol):
    """What a tier has, beside ``Tier``, to which checkpoints put rows past the tiers above it."""

    def saved(self, table: str, ids_n: Int64s, versions_n: Int64s, save: Callable[[], None], /) -> None:
        """Call ``save``, which puts these rows here, ids distinct. From then on ``put`` gets no older version of them from above."""


def unsaved_ids(tier: Tier, table: str, since: int) -> Int64s:
    """``tier.unsaved``; of a tier that does not know, all ids."""
    return tier.unsaved(table, since) if isinstance(tier, ListsUnsaved) else tier.ids(table)


def save_past(tier: Tier, table: str, ids_n: Int64s, versions_n: Int64s, save: Callable[[], None]) -> None:
    """``tier.saved``; a tier that does not get what is saved has nothing to say about it."""
    if isinstance(tier, GetsSaved):
        tier.saved(table, ids_n, versions_n, save)
    else:
        save()
