"""Small ways to break a replica, each of which a test must notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from pipeline.replica import applier, intake, joining
from pipeline.replica.cuts import StagedRows
from pipeline.replica.intake import Intake
from pipeline.replica.old_rows import OldPlaces
from pipeline.replica.order import Verdict
from pipeline.replica.rowmap import Naming, PlacedRows, RowMap
from pipeline.replica.staging import StagedCut
from pipeline.replica.tables import Tables
from pipeline.replica.undo import UndoLog
from pipeline.wire.frames import START


@contextmanager
def apply_half_a_cut() -> Iterator[None]:
    whole = StagedCut.parts

    def half(self: StagedCut) -> Iterator[StagedRows]:
        parts = list(whole(self))
        return iter(parts[: (len(parts) + 1) // 2])

    with patch.object(StagedCut, "parts", half):
        yield


@contextmanager
def skip_the_digest_check() -> Iterator[None]:
    with patch.object(StagedCut, "check", lambda *_: None):
        yield


@contextmanager
def ignore_tombstones() -> Iterator[None]:
    with patch.object(Tables, "_forget", lambda *_: 0):
        yield


@contextmanager
def keep_rows_a_snapshot_cut_does_not_name() -> Iterator[None]:
    with patch.object(Naming, "others", lambda *_: np.empty(0, dtype=np.int64)):
        yield


@contextmanager
def skip_undo() -> Iterator[None]:
    with patch.object(UndoLog, "old_rows", lambda *_: None):
        yield


@contextmanager
def free_places_that_views_read() -> Iterator[None]:
    keep = OldPlaces.keep

    def eager(self: OldPlaces, ids_n: Any, places_n: Any) -> None:
        keep(self, ids_n, places_n)
        self._rows.index.free(places_n)

    with patch.object(OldPlaces, "keep", eager):
        yield


@contextmanager
def find_rows_before_they_are_shown() -> Iterator[None]:
    place = RowMap.place

    def hasty(self: RowMap, rows: StagedRows) -> PlacedRows:
        placed = place(self, rows)
        self.index.point(placed.ids_n, placed.places_n)
        return placed

    with patch.object(RowMap, "place", hasty):
        yield


@contextmanager
def apply_an_old_cut_again() -> Iterator[None]:
    take = Intake.take

    def forgetful(self: Intake, at: Any, where: str, payload: bytes, applied: Any) -> Any:
        del applied
        return take(self, at, where, payload, START)

    with patch.object(Intake, "take", forgetful), _judging(lambda *_: Verdict.APPLY):
        yield


@contextmanager
def _judging(judge: Any) -> Iterator[None]:
    """A shard judges its cuts, and so does the join of all."""
    with patch.object(intake, "judge", judge), patch.object(joining, "judge", judge):
        yield


@contextmanager
def apply_over_a_gap() -> Iterator[None]:
    with _judging(lambda applied, cut: Verdict.APPLY if cut.position > applied else Verdict.DROP):
        yield


@contextmanager
def show_a_cut_before_it_is_whole() -> Iterator[None]:
    begin = UndoLog.begin

    def forgetful(self: UndoLog, serial: int) -> None:
        begin(self, serial)
        self.layers[-1].base -= 1  # the views of this moment find nothing in it

    with patch.object(UndoLog, "begin", forgetful):
        yield


@contextmanager
def apply_at_once_under_a_pinned_view() -> Iterator[None]:
    with patch.object(UndoLog, "num_pinned", 0):
        yield


@contextmanager
def go_back_without_a_fork() -> Iterator[None]:
    with patch.object(applier, "goes_back", lambda *_: False):
        yield


SABOTAGES: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    sabotage.__name__: sabotage
    for sabotage in (
        apply_half_a_cut,
        skip_the_digest_check,
        ignore_tombstones,
        keep_rows_a_snapshot_cut_does_not_name,
        skip_undo,
        free_places_that_views_read,
        find_rows_before_they_are_shown,
        apply_an_old_cut_again,
        apply_over_a_gap,
        show_a_cut_before_it_is_whole,
        apply_at_once_under_a_pinned_view,
        go_back_without_a_fork,
    )
}
