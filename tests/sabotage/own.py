"""Small ways to break the streaming of a loop without a store, and of what rides along. Each is caught by the check named in
``test_own.py`` beside this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from pipeline.stream import cut
from pipeline.stream.carried import carried_columns
from pipeline.stream.own import source, streamer, telling
from pipeline.stream.own.source import OwnSnapshot, OwnSource
from pipeline.stream.own.told import Told, newest
from pipeline.stream.streamer import RowStreamer as CutStreamer
from pipeline.wire import digest
from tests.sabotage.caught import Sabotage


def _keep_the_first_word_of_a_row() -> AbstractContextManager[Any]:
    return patch.multiple(source, newest=lambda pieces: newest(pieces[::-1]))


def _mix_up_the_words_of_one_step() -> AbstractContextManager[Any]:
    return patch.multiple(telling, newest=lambda pieces: newest(pieces[::-1]))


def _let_rows_go_before_their_cut() -> AbstractContextManager[Any]:
    end_step = OwnSource.end_step

    def end_and_let_go(self: OwnSource, step: int, told: Any) -> None:
        self.release(step - 2)
        end_step(self, step, told)

    return patch.object(OwnSource, "end_step", end_and_let_go)


@contextmanager
def _let_rows_of_a_failed_cut_go() -> Iterator[None]:
    publish = CutStreamer._publish_changed

    def publish_and_let_go(self: Any, frozen: Any) -> Any:
        try:
            return publish(self, frozen)
        finally:
            self._own.release(frozen.step)

    with patch.object(CutStreamer, "_publish_changed", publish_and_let_go):
        yield


def _forget_what_was_deleted() -> AbstractContextManager[Any]:
    return patch.object(streamer.RowStreamer, "delete", lambda *_: None)


def _send_deleted_rows_as_zeros() -> AbstractContextManager[Any]:
    read = OwnSnapshot.read

    def read_all(self: OwnSnapshot, ids: Any) -> Any:
        found = read(self, ids)
        found.held_n[:] = True
        return found

    return patch.object(OwnSnapshot, "read", read_all)


def _give_rows_the_step_of_the_cut() -> AbstractContextManager[Any]:
    end_step = OwnSource.end_step

    def end_and_stamp(self: OwnSource, step: int, told: Any) -> None:
        end_step(self, step, told)
        with self._lock:
            self._told = {table: [piece.at(step) for piece in pieces] for table, pieces in self._told.items()}

    return patch.object(OwnSource, "end_step", end_and_stamp)


def _restart_beside_the_rows_of_before() -> AbstractContextManager[Any]:
    """As an ordinary cut, which leaves replicas what it does not name."""

    def replace_all(self: Any) -> Any:
        self.changed.add(
            self._own.step, 1, {table: self._own.newest(table, self._own.pieces(table)).ids_n for table in self._tables}
        )
        return self.cut()

    return patch.object(streamer.RowStreamer, "_replace_all", replace_all)


def _restart_with_rows_that_were_deleted() -> AbstractContextManager[Any]:
    return patch.object(Told, "held_ids", property(lambda self: self.ids_n))


@contextmanager
def _carry_a_neighbours_columns() -> Iterator[None]:
    def roll(runs: Any, rows_nb: Any) -> Any:
        found = carried_columns(runs, rows_nb)
        return {run: {name: np.roll(of, 1, axis=0) for name, of in columns.items()} for run, columns in found.items()}

    with patch.object(cut, "carried_columns", roll):
        yield


def _carry_what_lies_before_the_column() -> AbstractContextManager[Any]:
    def shifted(table: Any, name: str, rows_nb: Any) -> Any:
        layout = table.spec.layout
        start = layout.offsets[name] - 4
        return np.ascontiguousarray(rows_nb[:, start : start + layout.column(name).nbytes])

    return patch("pipeline.stream.carried.column_bytes", shifted)


def _leave_columns_out_of_the_digest() -> AbstractContextManager[Any]:
    return patch.object(cut, "extra_digest", lambda runs: sum(map(_tombstones, runs)) & digest.MASK)


def _tombstones(part: Any) -> int:
    return digest.tombstones_digest(part.table, part.tombstones_m) if len(part.tombstones_m) else 0


SABOTAGES: dict[str, Sabotage] = {
    function.__name__.strip("_").replace("_", " "): function
    for function in (
        _keep_the_first_word_of_a_row,
        _mix_up_the_words_of_one_step,
        _let_rows_go_before_their_cut,
        _let_rows_of_a_failed_cut_go,
        _forget_what_was_deleted,
        _send_deleted_rows_as_zeros,
        _give_rows_the_step_of_the_cut,
        _restart_beside_the_rows_of_before,
        _restart_with_rows_that_were_deleted,
        _carry_a_neighbours_columns,
        _carry_what_lies_before_the_column,
        _leave_columns_out_of_the_digest,
    )
}
