"""Rows move to another place with each change: views read the old one until they are closed, and then it is used again."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from pipeline.replica import Replica, View
from pipeline.replica import tables as tables_module
from pipeline.replica.carried import Carried
from pipeline.replica.cuts import Applied, Cut, StagedRows
from pipeline.replica.old_rows import OldPlaces
from pipeline.replica.rowmap import RowMap
from pipeline.replica.tables import Tables
from pipeline.rows.codec import find_codec
from pipeline.wire.frames import CutPosition, HeaderFrame, StreamedTable
from tests.replica.trainer import DictTrainer, MemoryTransport, assert_equal, assert_shows, table_spec
from tests.replica.training import ALL_IDS, PROBES, Training

CHOICES = st.lists(st.integers(0, 5), min_size=1, max_size=8)
MOST_VIEWS = 4


def taken(tables: Tables, name: str) -> tuple[int, int]:
    """(places that were ever used, of these free ones) of a table; every other one has a row, or one that views still read."""
    rows = tables.table(name).rows
    assert isinstance(rows, RowMap)
    old = [layer.tables[name] for layer in tables.undo.layers if name in layer.tables]
    kept = sum(one.num_rows for one in old if isinstance(one, OldPlaces))
    assert rows.index.used == rows.count + rows.index.num_free + kept
    return rows.index.used, rows.index.num_free


class MovingRows(Training):
    """A trainer of dicts, a replica that takes its cuts at once or three rows at a time; views come and go before rows are shown."""

    def __init__(self) -> None:
        super().__init__()
        self.trainer = DictTrainer({"a": 3, "b": 1})
        self.trainer.share, self.trainer.carries = 0.5, ("slow", "raw")
        self.transport = MemoryTransport()
        self.transport.begin(self.trainer.header())
        self.replica = Replica(self.transport)  # type: ignore[arg-type]
        self.replica.apply_available()
        assert isinstance(self.replica._held, Tables)
        self.tables = self.replica._held
        self.views: list[tuple[View, CutPosition]] = []
        self.choices: list[int] = []
        place = self.tables._place

        def place_and_look(rows: StagedRows) -> object:
            placed = place(rows)
            self.look()
            return placed

        self.tables._place = place_and_look  # type: ignore[method-assign]

    def look(self) -> None:
        """Open or close a view, perhaps, and read all of them."""
        choice = self.choices.pop() if self.choices else 5
        if choice < 2 and len(self.views) < MOST_VIEWS:
            self.views.append((self.replica.view(), self.replica.position))
        elif choice < 4 and self.views:
            self.views.pop(choice % len(self.views))[0].close()
        for view, position in self.views:
            assert_shows(view, self.trainer, position, PROBES)

    @rule(choices=CHOICES, chunk=st.integers(1, 6), at_once=st.booleans())
    def cut(self, choices: list[int], chunk: int, at_once: bool) -> None:
        self.apply(self.trainer.cut(chunk=chunk), choices, at_once)

    @rule(chunk=st.integers(1, 6))
    def abandon(self, chunk: int) -> None:
        self.apply(self.trainer.cut(chunk=chunk, commit=False), [], False)

    @rule(choices=CHOICES, chunk=st.integers(1, 6))
    def lose_a_cut(self, choices: list[int], chunk: int) -> None:
        """What replaces it is a snapshot cut."""
        self.trainer.cut()
        self.apply([*self.trainer.cut(), *self.trainer.snapshot(chunk)], choices, False)

    @rule(choices=CHOICES)
    def come_and_go(self, choices: list[int]) -> None:
        self.choices = choices
        while self.choices:
            self.look()

    @invariant()
    def no_place_is_lost_and_no_more_are_used_than_views_need(self) -> None:
        for name in ("a", "b"):
            used, _ = taken(self.tables, name)
            assert used <= len(ALL_IDS) * (MOST_VIEWS + 2)

    @invariant()
    def shows_the_last_cut(self) -> None:
        assert_equal(self.replica, self.trainer, PROBES)

    def teardown(self) -> None:
        for view, position in self.views:
            assert_shows(view, self.trainer, position, PROBES)
            view.close()
        assert not self.tables.undo.layers
        for name in ("a", "b"):
            used, free = taken(self.tables, name)
            assert used - free == len(self.trainer.states[self.replica.position][name])
        self.replica.close()

    def apply(self, frames: list[bytes], choices: list[int], at_once: bool) -> None:
        self.choices = choices
        self.transport.publish(frames)
        whole_rows = tables_module.WHOLE_ROWS if at_once else 0
        with patch.object(tables_module, "CHUNK_ROWS", 3), patch.object(tables_module, "WHOLE_ROWS", whole_rows):
            self.replica.apply_available()
        self.choices = []


TestMovingRows = MovingRows.TestCase
TestMovingRows.settings = settings(max_examples=10, stateful_step_count=12, deadline=None)


@pytest.mark.long
class TestMovingRowsForLong(MovingRows.TestCase):  # type: ignore[misc,valid-type]
    settings = settings(max_examples=400, stateful_step_count=30, deadline=None)


@pytest.fixture
def tables() -> Iterator[Tables]:
    made = Tables(1 << 20, None)
    header = HeaderFrame("run", "trainer", 0, 1, 1, "epoch", 1, (StreamedTable(table_spec("a", 2), "fp32"),))
    made.describe("here", header)
    yield made
    made.close()


def some_rows(ids: list[int], version: int, dead: list[int] | None = None) -> StagedRows:
    """Rows whose weights are id and version."""
    ids_n, codec = np.array(ids, dtype=np.int64), find_codec("fp32")
    weights_nd = np.stack([ids_n, np.full(len(ids), version)], axis=1).astype(np.float32)
    versions_n, spec = np.full(len(ids), version), table_spec("a", 2)
    dead_m = np.array(dead or [], dtype=np.int64)
    extra_nx = np.empty((len(ids), 0), dtype=np.uint8)
    return StagedRows("a", ids_n, codec.encode(weights_nd), versions_n, dead_m, codec, 2, Carried(spec), extra_nx)


def cut_of(tables: Tables, *parts: StagedRows) -> Cut:
    position = CutPosition(1, tables.state.applied.position.cut + 1)
    return Cut(Applied(position), False, lambda: iter(parts), None, sum(len(part.ids_n) for part in parts))


def shown(tables: Tables, view: View | None = None) -> dict[int, int]:
    """The version of each id, as its weights tell it."""
    with tables.open_view(lambda: None) as now:
        one = view or now
        ids_n = one.ids("a")
        weights_nd, versions_n = one.lookup_versions("a", ids_n)
    assert np.array_equal(weights_nd[:, 0], ids_n)
    assert np.array_equal(weights_nd[:, 1], versions_n)
    return dict(zip(ids_n.tolist(), versions_n.tolist(), strict=True))


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("pinned", [True, False])
def test_of_a_row_that_comes_twice_in_a_cut_the_last_is_shown_and_views_keep_what_stood_before(
    tables: Tables, at_once: bool, pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not at_once:
        monkeypatch.setattr(tables_module, "WHOLE_ROWS", -1)
    tables.apply(cut_of(tables, some_rows([1, 2, 3], 1)))
    view = tables.open_view(lambda: None) if pinned else None
    tables.apply(cut_of(tables, some_rows([1, 2], 2), some_rows([2, 4], 3, dead=[3, 9]), some_rows([2], 4, dead=[4])))
    assert shown(tables) == {1: 2, 2: 4}
    if view is not None:
        assert shown(tables, view) == {1: 1, 2: 1, 3: 1}
        view.close()
    used, free = taken(tables, "a")
    assert used - free == 2


def test_what_no_view_reads_any_more_makes_room_for_later_rows(tables: Tables) -> None:
    tables.apply(cut_of(tables, some_rows(list(range(100)), 1)))
    for version in range(2, 30):
        with tables.open_view(lambda: None) as view:
            tables.apply(cut_of(tables, some_rows(list(range(100)), version)))
            assert set(shown(tables, view).values()) == {version - 1}
        assert set(shown(tables).values()) == {version}
    used, _ = taken(tables, "a")
    assert used <= 300


def test_rows_that_were_written_and_not_shown_are_found_by_nobody(tables: Tables) -> None:
    tables.apply(cut_of(tables, some_rows([1, 2], 1)))
    rows = tables.table("a").rows
    placed = rows.place(some_rows([2, 3], 2))
    assert shown(tables) == {1: 1, 2: 1}
    assert rows.count == 2
    rows.show(placed, None)
    assert shown(tables) == {1: 1, 2: 2, 3: 2}
