"""A view pins one cut for all tables and the dense weights, whatever is applied meanwhile (G3)."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.replica import Replica, ReplicaFailed, View, ViewExpired
from pipeline.replica import tables as tables_module
from pipeline.replica.rowmap import RowMap
from pipeline.replica.table import Table
from pipeline.replica.tables import Tables
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.narrow import narrow as narrowed
from pipeline.rows.narrow import widen
from pipeline.wire.frames import START
from tests.replica.trainer import DictTrainer, MemoryTransport, assert_equal, assert_shows, digest_of

DIMS = {"item": 4, "user": 3}


class Stage:
    """A trainer, its stream and one replica."""

    def __init__(self, **options: int) -> None:
        self.trainer = DictTrainer(DIMS, seed=5)
        self.transport = MemoryTransport()
        self.transport.begin(self.trainer.header())
        self.replica = Replica(self.transport, **options)  # type: ignore[arg-type]
        self.replica.apply_available()
        assert isinstance(self.replica._held, Tables)
        self.tables = self.replica._held

    def advance(self, *, rows: int = 20, forget: int = 2) -> None:
        trainer = self.trainer
        ids = trainer.rng.integers(0, 60, rows).tolist()
        trainer.dense = {"w": trainer.rng.normal(size=(3, 3)).astype(np.float32)}
        trainer.update({"item": list(dict.fromkeys(ids)), "user": list({i % 7 for i in ids})})
        trainer.forget("item", trainer.rng.integers(0, 60, forget).tolist())
        self.transport.publish(trainer.cut())
        self.replica.apply_available()

    def view(self) -> tuple[View, object]:
        return self.replica.view(), self.replica.position


def test_many_views_each_see_the_cut_they_pinned() -> None:
    stage = Stage()
    rng = np.random.default_rng()
    views: list[tuple[View, object]] = [stage.view()]
    for _ in range(25):
        stage.advance()
        if rng.random() < 0.6:
            views.append(stage.view())
        if views and rng.random() < 0.4:
            view, _ = views.pop(int(rng.integers(len(views))))
            view.close()
        for view, position in views:
            assert_shows(view, stage.trainer, position, probes=range(60))  # type: ignore[arg-type]
    for view, _ in views:
        view.close()
    assert stage.tables.undo.layers == []
    assert_equal(stage.replica, stage.trainer)


def test_a_view_opened_before_the_first_cut_stays_there() -> None:
    stage = Stage()
    with stage.replica.view() as view:
        stage.advance()
        stage.advance()
        assert_shows(view, stage.trainer, START, probes=range(60))
        assert view.step == 0
        assert view.digest() == 0


def test_a_view_keeps_the_rows_that_a_snapshot_cut_drops() -> None:
    stage = Stage()
    stage.advance(rows=50)
    before = stage.replica.position
    with stage.replica.view() as view:
        trainer = stage.trainer
        trainer.forget("item", list(trainer.model["item"])[::2])
        trainer.cut()  # never published: the replica falls behind
        trainer.update({"user": [1, 2]})
        stage.transport.publish([*trainer.cut(), *trainer.snapshot()])
        stage.replica.apply_available()
        assert stage.replica.counters.snapshot_cuts == 1
        assert_shows(view, trainer, before, probes=range(60))
        assert_equal(stage.replica, trainer, probes=range(60))


def test_a_view_pinned_for_long_keeps_each_row_once_however_often_it_changes() -> None:
    stage = Stage()
    stage.advance(rows=60, forget=0)
    view, position = stage.view()
    stage.trainer.dense = None
    sizes = []
    for _ in range(30):
        stage.trainer.update({"item": list(range(20))})
        stage.transport.publish(stage.trainer.cut())
        stage.replica.apply_available()
        sizes.append(stage.tables.undo.nbytes)
    assert sizes[-1] == sizes[1], "twenty rows changed, thirty times each"
    assert_shows(view, stage.trainer, position)  # type: ignore[arg-type]
    view.close()


def test_a_long_lookup_is_answered_whole_and_in_order() -> None:
    stage = Stage()
    stage.advance(rows=60, forget=0)
    ids = np.random.default_rng().integers(-5, 65, 100_000)
    with stage.replica.view() as view:
        weights = view.lookup("item", ids)
        distinct, where = np.unique(ids, return_inverse=True)
        assert np.array_equal(weights, view.lookup("item", distinct)[where])
        assert view.lookup("item", []).shape == (0, 4)


def test_views_pinned_beyond_the_bound_end_with_an_error_oldest_first() -> None:
    stage = Stage(pinned_bytes=30_000)
    stage.advance(rows=60, forget=0)
    opened = []
    for _ in range(20):
        opened.append(stage.view())
        stage.advance(rows=60, forget=0)
        assert stage.tables.undo.nbytes <= 30_000
    expired = [view.expired for view, _ in opened]
    assert expired == sorted(expired, reverse=True)
    assert 0 < sum(expired) < len(expired)
    assert stage.replica.counters.expired_views == sum(expired)
    with pytest.raises(ViewExpired, match=r"cut 1 of generation 1 has ended.*pinned_bytes = 30000"):
        opened[0][0].lookup("item", [1])
    for view, position in opened:
        if not view.expired:
            assert_shows(view, stage.trainer, position, probes=range(60))  # type: ignore[arg-type]
        view.close()
    assert stage.tables.undo.num_pinned == 0


def test_a_view_that_does_not_know_a_table_names_the_ones_it_has() -> None:
    stage = Stage()
    with stage.replica.view() as view, pytest.raises(KeyError, match="did you mean 'item'"):
        view.lookup("itme", [1])


@pytest.fixture
def half_way(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """(set when the applier stands in the middle of a cut, set to let it go on)."""
    arrived, go_on = threading.Event(), threading.Event()
    write, calls = tables_module.Tables._write, []

    def stop(self: tables_module.Tables, table: Table, chunk: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            arrived.set()
            assert go_on.wait(30)
        return write(self, table, chunk)  # type: ignore[arg-type]

    monkeypatch.setattr(tables_module.Tables, "_write", stop)
    monkeypatch.setattr(tables_module, "WHOLE_ROWS", 0)
    return arrived, go_on


def test_in_the_middle_of_a_cut_views_show_the_cut_before(
    half_way: tuple[threading.Event, threading.Event],
) -> None:
    arrived, go_on = half_way
    stage = Stage()
    stage.trainer.dense = {"w": np.ones(2, np.float32)}
    stage.trainer.update({"item": [1, 2, 3]})
    stage.transport.publish(stage.trainer.cut(chunk=10))
    stage.replica.apply_available()
    old, before = stage.view()
    stage.trainer.dense = {"w": np.zeros(2, np.float32)}
    stage.trainer.update({"item": list(range(20)), "user": [4]})
    stage.transport.publish(stage.trainer.cut(chunk=10))
    applier = threading.Thread(target=stage.replica.apply_available)
    applier.start()
    try:
        assert arrived.wait(30)
        with stage.replica.view() as new:
            assert_shows(new, stage.trainer, before, probes=range(30))  # type: ignore[arg-type]
            assert_shows(old, stage.trainer, before, probes=range(30))  # type: ignore[arg-type]
            go_on.set()
            applier.join()
            assert_shows(new, stage.trainer, before, probes=range(30))  # type: ignore[arg-type]
    finally:
        go_on.set()
        applier.join()
        old.close()
    assert_equal(stage.replica, stage.trainer)


def test_no_view_shows_a_cut_whose_application_failed_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    stage.trainer.update({"item": [1, 2, 3], "user": [4]})
    stage.transport.publish(stage.trainer.cut(chunk=10))
    show, calls = RowMap.show, list[int]()
    refused: list[BaseException] = []

    def look() -> None:
        with pytest.raises(ReplicaFailed) as caught, stage.replica.view():
            pass
        refused.append(caught.value)

    reader = threading.Thread(target=look)

    def fail(self: RowMap, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            reader.start()
            raise MemoryError
        return show(self, *args)

    monkeypatch.setattr(RowMap, "show", fail)
    with pytest.raises(ReplicaFailed):
        stage.replica.apply_available()
    reader.join()
    assert refused


def test_while_a_cut_too_long_for_the_bound_is_applied_a_new_view_waits_for_its_end(
    half_way: tuple[threading.Event, threading.Event],
) -> None:
    arrived, go_on = half_way
    stage = Stage(pinned_bytes=10)
    stage.trainer.update({"item": list(range(40))})
    stage.transport.publish(stage.trainer.cut(chunk=10))
    seen: list[int] = []
    opening = threading.Event()

    def look() -> None:
        opening.set()
        with stage.replica.view() as view:
            seen.append(view.digest())

    applier = threading.Thread(target=stage.replica.apply_available)
    reader = threading.Thread(target=look)
    applier.start()
    try:
        assert arrived.wait(30)
        reader.start()
        assert opening.wait(30)
    finally:
        go_on.set()
        applier.join()
    reader.join()
    assert seen == [digest_of(stage.trainer.model)]


def test_readers_that_hammer_see_only_states_of_the_trainer_and_steps_never_fall() -> None:
    stage = Stage()
    trainer, transport, replica = stage.trainer, stage.transport, stage.replica
    stop, failures = threading.Event(), list[str]()
    by_step = {0: 0}
    seen: list[list[tuple[int, int]]] = [[], []]

    def hammer(mine: list[tuple[int, int]]) -> None:
        while not stop.is_set():
            with replica.view() as view:
                first = view.lookup("item", range(60))
                mine.append((view.step, view.digest()))
                if not np.array_equal(first, view.lookup("item", range(60))):
                    failures.append(f"two lookups of one view differ at step {view.step}")

    follower = threading.Thread(target=replica.follow, args=(stop,))
    readers = [threading.Thread(target=hammer, args=(mine,)) for mine in seen]
    for thread in (follower, *readers):
        thread.start()
    try:
        for _ in range(150):
            ids = trainer.rng.choice(60, 30, replace=False).tolist()
            trainer.update({"item": ids, "user": ids[:7]})
            trainer.forget("item", ids[:2])
            by_step[trainer.step] = digest_of(trainer.model)
            if trainer.rng.random() < 0.7:
                transport.publish(trainer.cut(chunk=5))
    finally:
        transport.publish(trainer.cut(chunk=5, end=True))
        stop.set()
        for thread in (follower, *readers):
            thread.join()
    replica.apply_available()
    assert_equal(replica, trainer)
    assert not failures
    for mine in seen:
        steps = [step for step, _ in mine]
        assert steps == sorted(steps)
        assert all(digest == by_step[step] for step, digest in mine)


def test_a_lookup_may_write_to_a_buffer_of_the_caller() -> None:
    stage = Stage()
    stage.advance(rows=60, forget=0)
    out = np.full((5, 4), np.nan, dtype=np.float32)
    with stage.replica.view() as view:
        assert view.lookup("item", [1, 2, 3, -9, 1], out) is out
        assert np.array_equal(out, view.lookup("item", [1, 2, 3, -9, 1]))
        for wrong in (out[:4], out.astype(np.float64), np.asfortranarray(out)):
            with pytest.raises(ValueError, match=r"C-contiguous float32 \[5, 4\]"):
                view.lookup("item", [1, 2, 3, -9, 1], wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rows_never_updated_are_answered_as_the_trainer_would_keep_them(dtype: str) -> None:
    trainer, transport = DictTrainer({"item": 6}), MemoryTransport()
    narrow = Column("weight", dtype, 6, "weight")
    trainer.specs["item"] = replace(trainer.specs["item"], layout=RowLayout((narrow,)))
    transport.begin(trainer.header())
    replica = Replica(transport)  # type: ignore[arg-type]
    trainer.update({"item": [1, 2]})
    transport.publish(trainer.cut())
    replica.apply_available()
    assert_equal(replica, trainer, probes=range(50))
    with replica.view() as view:
        weights = view.lookup("item", np.arange(3, 50))
    assert len(np.unique(weights)) > 50
    np.testing.assert_array_equal(weights, widen(narrowed(weights, dtype), dtype))
