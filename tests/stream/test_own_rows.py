"""RowStreamer for rows of a loop of one's own: what it takes, what it refuses, and what replicas hold then."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import RowStreamer
from pipeline.files import DiskFull
from pipeline.replica import Replica
from pipeline.rows.initial import initial_rows
from pipeline.stream import OwnRows, RowReader
from pipeline.stream.errors import (
    CannotList,
    CannotPush,
    OtherStream,
    PushedRowsFull,
    StepWentBack,
    StreamExists,
)
from pipeline.stream.own.tables import OwnTable
from pipeline.wire import FileTransport, RowsFrame, StreamLost, WriterFenced, decode_frame
from tests.contracts.streamed import frames_of
from tests.stream.broken_transport import BrokenTransport
from tests.stream.dict_replica import DictReplica
from tests.stream.list_transport import ListTransport
from tests.stream.memory_source import MemorySource

ITEM = {"item": {"dim": 2}}
SOON_S = 20.0


def ones(count: int, value: float = 1.0) -> Any:
    return np.full((count, 2), value, dtype=np.float32)


@contextmanager
def replica_of(path: Path) -> Iterator[Any]:
    with Replica(str(path)) as replica:
        replica.apply_available()
        with replica.view() as view:
            yield view


class Weights(RowReader):
    """Rows in an array, whose owner can list them."""

    def __init__(self, count: int) -> None:
        self.rows_nd = np.zeros((count, 2), dtype=np.float32)
        self.reads: list[list[int]] = []

    def read(self, table: str, ids: Any) -> Any:  # noqa: ARG002
        self.reads.append(ids.tolist())
        return self.rows_nd[ids]

    def ids(self, table: str) -> Any:  # noqa: ARG002
        return np.arange(len(self.rows_nd))


def test_touched_rows_are_read_once_when_a_cut_carries_them(tmp_path: Path) -> None:
    weights = Weights(100)
    with RowStreamer(ITEM, tmp_path, rows=weights, every=None) as streamer:
        for step in (1, 2, 3):
            weights.rows_nd[step : step + 2] = step
            streamer.touch("item", [[step], [step + 1]])
            streamer.end_step(step)
        assert weights.reads == []
        streamer.cut()
        assert weights.reads == [[1, 2, 3, 4]]
    with replica_of(tmp_path) as view:
        found, versions = view.lookup_versions("item", [1, 2, 3, 4, 5])
        assert found[:, 0].tolist() == [1, 2, 3, 3, 0]
        assert [int(version & 0xFF) for version in versions] == [1, 2, 3, 3, 0]


def test_of_ids_that_repeat_the_last_row_counts(tmp_path: Path) -> None:
    with RowStreamer(ITEM, tmp_path, every="1 step") as streamer:
        streamer.push("item", [7, 7, 8], np.array([[1, 1], [2, 2], [3, 3]], dtype=np.float32))
        streamer.push("item", torch.tensor([8]), torch.full((1, 2), 4.0, requires_grad=True))
        streamer.end_step(1)
        assert streamer.committed_step == 1
        assert streamer.pushed_nbytes == 0, "what a cut carried is let go"
    with replica_of(tmp_path) as view:
        assert view.lookup("item", [7, 8])[:, 0].tolist() == [2, 4]


def test_rows_that_nobody_updated_are_those_of_the_initializer(tmp_path: Path) -> None:
    table = {"dim": 4, "init": {"kind": "uniform", "low": -1, "high": 1}, "seed": 9}
    with RowStreamer({"item": table, "user": {"dim": 2, "default": 0.5}}, tmp_path) as streamer:
        told, default = streamer.initial("item", [-3, 12]), streamer.initial("user", [7])
        streamer.push("item", [12], told[1:] + 1)
        streamer.end_step(1)
    spec = OwnTable.model_validate(table).streamed("item").spec
    assert (
        told.tobytes()
        == np.ascontiguousarray(spec.layout.view(initial_rows(spec, np.array([-3, 12])), "weight")).tobytes()
    )
    with replica_of(tmp_path) as view:
        assert view.lookup("item", [-3]).tobytes() == told[:1].tobytes()
        assert view.lookup("item", [12]).tobytes() == (told[1:] + 1).tobytes()
        assert view.lookup("user", [7]).tolist() == default.tolist() == [[0.5, 0.5]]


def test_deleted_rows_are_forgotten_and_may_come_back(tmp_path: Path) -> None:
    with RowStreamer({"item": {"dim": 2, "default": 0.5}}, tmp_path, every="1 step") as streamer:
        streamer.push("item", [1, 2], ones(2))
        streamer.end_step(1)
        streamer.delete("item", [1, 2])
        streamer.push("item", [2], ones(1, 3.0))
        streamer.end_step(2)
    with replica_of(tmp_path) as view:
        assert view.ids("item").tolist() == [2]
        assert view.lookup("item", [1, 2])[:, 0].tolist() == [0.5, 3.0]


def test_a_reader_may_say_that_rows_are_gone(tmp_path: Path) -> None:
    def read(_table: str, ids: Any) -> OwnRows:
        return OwnRows(ones(len(ids)), held=ids != 2)

    with RowStreamer(ITEM, tmp_path, rows=read) as streamer:
        streamer.touch("item", [1, 2, 3])
        streamer.end_step(1)
    with replica_of(tmp_path) as view:
        assert view.ids("item").tolist() == [1, 3]


def test_dense_weights_ride_in_every_cut(tmp_path: Path) -> None:
    top = torch.nn.Linear(3, 1)
    with RowStreamer(ITEM, tmp_path, dense=lambda: dict(top.named_parameters())) as streamer:
        streamer.end_step(1)
    with replica_of(tmp_path) as view:
        assert view.dense()["weight"].tobytes() == top.weight.detach().numpy().tobytes()


def test_late_replicas_start_at_a_snapshot_cut_of_who_can_list_rows(tmp_path: Path) -> None:
    weights = Weights(50)
    with RowStreamer(ITEM, tmp_path, rows=weights, every=None) as streamer:
        weights.rows_nd[:] = 2.0
        streamer.touch("item", range(50))
        streamer.end_step(1)
        streamer.cut()
        weights.rows_nd[4] = 3.0
        streamer.touch("item", [4])
        streamer.end_step(2)
        streamer.snapshot_cut()
    with replica_of(tmp_path) as view:
        assert view.ids("item").tolist() == list(range(50))
        assert view.lookup("item", [3, 4])[:, 0].tolist() == [2.0, 3.0]


def test_a_loop_streams_in_shards_and_goes_on_there(tmp_path: Path) -> None:
    weights = Weights(3000)
    for life in (1, 2):
        with RowStreamer(ITEM, tmp_path, rows=weights, every=None, shards=3, resume=True) as streamer:
            for step in range(streamer.committed_step + 1, streamer.committed_step + 6):
                with streamer.step(step):
                    ids = np.arange(step, 3000, step)
                    weights.rows_nd[ids] = step
                    streamer.touch("item", ids)
                streamer.cut()
        with replica_of(tmp_path) as view:
            assert view.step == 5 * life
            ids = view.ids("item")
            assert ids.tolist() == list(range(1, 3000))
            assert view.lookup("item", ids).tobytes() == weights.rows_nd[1:].tobytes()
    for others in (1, 2):
        streamer = RowStreamer(ITEM, tmp_path, rows=weights, shards=others, resume=True)
        with pytest.raises(OtherStream, match=f"it has 3 shards, not {others}"):
            streamer.open()


def test_who_cannot_list_rows_makes_no_snapshot_cut(tmp_path: Path) -> None:
    with RowStreamer(ITEM, tmp_path) as streamer:
        streamer.push("item", [1], ones(1))
        streamer.end_step(1)
        with pytest.raises(CannotList, match="nobody can list the rows of table 'item'"):
            streamer.snapshot_cut()


def test_a_row_source_of_ones_own_is_touched(tmp_path: Path) -> None:
    source = MemorySource()
    with RowStreamer(source, tmp_path, every=None) as streamer:
        for step in (1, 2):
            source.train({"users": [step], "items": [7]})
            streamer.touch("users", [step])
            streamer.touch("items", [7])
            streamer.end_step(step)
        with pytest.raises(CannotPush, match="touch"):
            streamer.push("items", [7], ones(1))
    with replica_of(tmp_path) as view:
        for table, rows in source.state.items():
            assert view.ids(table).tolist() == sorted(rows)
            for row_id, (weights, _) in rows.items():
                assert view.lookup(table, [row_id]).tobytes() == weights


def test_rows_wait_for_a_cut_that_failed() -> None:
    transport = ListTransport()
    streamer = RowStreamer(ITEM, transport, every=None)
    streamer.open()
    streamer.push("item", [1, 2], ones(2))
    streamer.end_step(1)
    transport.fails = DiskFull("somewhere", 100)
    with pytest.raises(DiskFull):
        streamer.cut()
    streamer.push("item", [2], ones(1, 2.0))
    streamer.end_step(2)
    commit = streamer.cut()
    assert commit is not None
    assert (commit.step, commit.num_rows) == (2, 2)


def test_a_loop_may_go_on_while_its_transport_fails() -> None:
    transport = ListTransport()
    streamer = RowStreamer(ITEM, transport, every="1 step", on_failure="retry")
    streamer.open()
    for step in (1, 2):
        transport.fails = DiskFull("somewhere", 100)
        streamer.push("item", [step], ones(1, step))
        streamer.end_step(step)  # the second does not try: it is too early
    assert (streamer.pacing.failures, type(streamer.pacing.last_failure)) == (1, DiskFull)
    transport.fails = None
    streamer.drain()
    assert (streamer.committed_step, streamer.pacing.last_failure) == (2, None)
    transport.fails = DiskFull("somewhere", 100)
    streamer.push("item", [3], ones(1))
    streamer.end_step(3)
    transport.fails = DiskFull("somewhere", 100)
    with pytest.raises(DiskFull):
        streamer.finish()


@pytest.mark.parametrize("error", [WriterFenced("s", "another"), DiskFull("elsewhere", 1)])
def test_what_no_later_cut_can_mend_is_raised(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    streamer = RowStreamer(ITEM, ListTransport(), every="1 step", on_failure="retry")
    streamer.open()

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    if isinstance(error, WriterFenced):
        monkeypatch.setattr(ListTransport, "publish", fail)
    else:
        monkeypatch.setattr(streamer._source, "freeze", fail)  # not the transport's
    with pytest.raises(type(error)):
        streamer.end_step(1)


def test_a_step_that_ends_while_a_cut_is_published_goes_into_the_next() -> None:
    class Training(ListTransport):
        def publish(self, frames: Sequence[bytes], *, sync: bool) -> Any:
            if streamer.committed_step == 0 and streamer.changed.last_step == 1:
                streamer.push("item", [2], ones(1))
                streamer.end_step(2)
            return super().publish(frames, sync=sync)

    streamer = RowStreamer(ITEM, Training(), every=None)
    streamer.open()
    streamer.push("item", [1, 2], ones(2))
    streamer.end_step(1)
    commits = [streamer.cut(), streamer.cut()]
    assert [(commit.step, commit.num_rows) for commit in commits if commit is not None] == [(1, 2), (2, 1)]


def test_frames_carry_no_more_columns_than_readers_accept(tmp_path: Path) -> None:
    tables = {f"t{number}": {"dim": 1, "states": {f"s{k}": 1 for k in range(8)}} for number in range(150)}
    one = np.ones((1, 1), dtype=np.float32)
    with RowStreamer(tables, tmp_path) as streamer:
        for table in tables:
            streamer.push(table, [5], one, states={f"s{k}": one for k in range(8)})
        streamer.end_step(1)
    with replica_of(tmp_path) as view:
        assert all(view.lookup(table, [5])[0, 0] == 1 for table in tables)


def test_pushed_rows_take_bounded_memory(tmp_path: Path) -> None:
    with RowStreamer(ITEM, tmp_path, every=None, pushed_bytes=4000) as streamer:
        for step in range(1, 101):  # 10 rows of 40 bytes
            streamer.push("item", np.arange(10) + 10 * step, ones(10, step))
            streamer.end_step(step)
            assert streamer.pushed_nbytes <= 2400
        assert streamer.committed_step > 80, "it cuts when half of it waits, although nobody asked it to"
        with pytest.raises(
            PushedRowsFull, match=r"pushed on top of \d+ that no cut has carried yet, and pushed_bytes is 4000"
        ):
            streamer.push("item", np.arange(200), ones(200))
        for _ in range(50):
            streamer.push("item", np.arange(20), ones(20))  # the newest alone is kept
        streamer.end_step(101)
    with replica_of(tmp_path) as view:
        assert len(view.ids("item")) == 20 + 1010 - 20
        assert view.lookup("item", [1005])[0, 0] == 100


def test_a_transport_that_fails_for_long_costs_bounded_memory() -> None:
    """80 MB of rows are pushed, a few hot ones again and again, while nothing can be published."""
    transport, wide = ListTransport(), {"item": {"dim": 256}}
    streamer = RowStreamer(wide, transport, every="1 step", on_failure="retry", pushed_bytes=4 << 20)
    streamer.open()
    transport.begin = transport.publish = fail  # type: ignore[method-assign]
    rng = np.random.default_rng(0)
    tracemalloc.start()
    try:
        for step in range(1, 401):
            ids = rng.integers(0, 1000, 200)
            streamer.push("item", ids, np.full((200, 256), step, dtype=np.float32))
            streamer.end_step(step)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * (4 << 20)
    assert streamer.pacing.failures > 0
    del transport.begin, transport.publish
    commit = streamer.cut()
    assert commit is not None
    assert (commit.step, commit.num_rows) == (400, 1000)


def fail(*_: Any, **__: Any) -> Any:
    raise DiskFull("somewhere", 100)


def test_rows_change_inside_a_step_while_other_threads_cut(tmp_path: Path) -> None:
    """Both rows are written by each step: a cut that read one before and one after would show a half of it."""
    weights, stop, step = Weights(2), threading.Event(), 0
    with RowStreamer(ITEM, tmp_path, rows=weights, every=None) as streamer:

        def cut() -> None:
            while not stop.is_set():
                streamer.cut()

        thread = threading.Thread(target=cut)
        thread.start()
        try:
            while streamer.counters.cuts < 50:
                step += 1
                with streamer.step(step):
                    weights.rows_nd[0] = step
                    streamer.touch("item", [0, 1])
                    weights.rows_nd[1] = step
        finally:
            stop.set()
            thread.join(SOON_S)
    with closing(FileTransport(str(tmp_path))) as transport:
        frames = [decode_frame(data) for data in frames_of(transport)]
    whole = [frame for frame in frames if isinstance(frame, RowsFrame)]
    assert len(whole) >= 50
    for frame in whole:
        assert set(frame.rows.rows_b.view(np.float32).tolist()) == {frame.step}


def test_a_stream_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    with RowStreamer(ITEM, tmp_path) as streamer:
        streamer.end_step(1)
    with pytest.raises(StreamExists, match="resume=True goes on with it"), RowStreamer(ITEM, tmp_path):
        raise AssertionError("it opened")


@pytest.mark.parametrize(
    ("tables", "run", "what"),
    [
        ({"user": {"dim": 2}}, None, r"it carries the tables \['item'\], not \['user'\]"),
        ({"item": {"dim": 3}}, None, "its table 'item' is another"),
        ({"item": {"dim": 2, "states": {"m": 1}}}, None, "its table 'item' is another"),
        ({"item": {"dim": 2, "default": 1.0}}, None, "default 0.0.*default 1.0"),
        (ITEM, "another", "not 'another'"),
    ],
)
def test_only_who_began_a_stream_goes_on_with_it(tmp_path: Path, tables: Any, run: str | None, what: str) -> None:
    with RowStreamer(ITEM, tmp_path) as streamer:
        streamer.end_step(1)
    with pytest.raises(OtherStream, match=what), RowStreamer(tables, tmp_path, resume=True, run=run):
        raise AssertionError("it opened")
    with RowStreamer(ITEM, tmp_path, resume=True) as again:
        assert again.committed_step == 1


def test_a_loop_that_died_goes_on_behind_the_last_cut(tmp_path: Path) -> None:
    first = RowStreamer(ITEM, tmp_path, resume=True, every=None)
    first.open()
    for step in (1, 2, 3):
        first.push("item", [step], ones(1, step))
        first.end_step(step)
        if step == 2:
            first.cut()
    first.close()  # as if it died: step 3 is in no cut
    with RowStreamer(ITEM, tmp_path, resume=True, every=None) as second:
        assert second.committed_step == 2
        with pytest.raises(StepWentBack, match="step 2 cannot end behind step 2"):
            second.end_step(2)
        second.push("item", [3], ones(1, 3.5))
        second.end_step(3)
    with replica_of(tmp_path) as view:
        assert (view.step, view.position.generation) == (3, 2)
        assert view.lookup("item", [1, 2, 3])[:, 0].tolist() == [1, 2, 3.5]


def test_a_loop_that_begins_elsewhere_takes_replicas_with_it(tmp_path: Path) -> None:
    with RowStreamer(ITEM, tmp_path) as first:
        for step in range(1, 11):
            first.push("item", [step, 100], ones(2, step))
            first.end_step(step)
    with Replica(str(tmp_path)) as replica:
        replica.apply_available()
        assert replica.step == 10
        with RowStreamer(ITEM, tmp_path, resume=True) as second:
            second.push("item", [1, 2, 100], ones(3, 2.0))
            second.restart(2)
            replica.apply_available()
            with replica.view() as view:
                assert view.step == 2
                assert view.ids("item").tolist() == [1, 2, 100]
            second.push("item", [5], ones(1, 5.0))
            second.end_step(3)
            with pytest.raises(StepWentBack, match="step 3 cannot end behind step 3"):
                second.restart(3)
        replica.apply_available()
        with replica.view() as view:
            assert (view.step, view.ids("item").tolist()) == (3, [1, 2, 5, 100])
            assert view.lookup("item", [1, 5, 100])[:, 0].tolist() == [2, 5, 2]


def test_a_restart_with_a_reader_names_the_rows_that_there_are(tmp_path: Path) -> None:
    weights = Weights(10)
    with RowStreamer(ITEM, tmp_path, rows=weights) as first:
        first.touch("item", range(10))
        first.end_step(1)
    weights.rows_nd[:] = 4.0
    with RowStreamer(ITEM, tmp_path, rows=weights, resume=True) as second:
        second.touch("item", range(5))
        second.restart(1)
    with replica_of(tmp_path) as view:
        assert view.ids("item").tolist() == [0, 1, 2, 3, 4]
        assert set(view.lookup("item", range(5)).ravel().tolist()) == {4.0}


def test_a_snapshot_cut_behind_a_restart_names_every_row(tmp_path: Path) -> None:
    weights = Weights(10)
    with RowStreamer(ITEM, tmp_path, rows=weights) as streamer:
        streamer.touch("item", range(10))
        streamer.restart(1)
        streamer.end_step(2)
        streamer.snapshot_cut()
    with replica_of(tmp_path) as view:
        assert view.ids("item").tolist() == list(range(10))


@pytest.mark.parametrize("dies", [False, True])
def test_a_loop_whose_stream_was_lost_brings_its_rows_again(dies: bool) -> None:
    transport, replica = BrokenTransport(), DictReplica()
    streamer = RowStreamer(ITEM, transport, every=None)
    streamer.open()
    for step in (1, 2):
        streamer.push("item", [step, 7], ones(2, step))
        streamer.end_step(step)
        streamer.cut()
    for data in transport.frames:
        replica.feed(data)
    transport.lose()
    streamer.push("item", [7], ones(1, 3.0))
    streamer.end_step(3)
    with pytest.raises(StreamLost):
        streamer.cut()
    with pytest.raises(CannotList):
        streamer.cut()  # nobody but the loop knows which rows there are
    if dies:
        streamer = RowStreamer(ITEM, transport, every=None, resume=True)
        streamer.open()
    streamer.push("item", [2, 7], ones(2, 4.0))
    streamer.restart(4)
    streamer.push("item", [8], ones(1, 5.0))
    streamer.end_step(5)
    streamer.finish()
    for data in transport.frames:
        replica.feed(data)
    assert replica.step == 5
    assert {row_id: weights for row_id, (weights, _) in replica.tables["item"].items()} == {
        2: ones(1, 4.0).tobytes(),
        7: ones(1, 4.0).tobytes(),
        8: ones(1, 5.0).tobytes(),
    }


def test_an_error_in_the_loop_leaves_no_end_mark(tmp_path: Path) -> None:
    def loop() -> None:
        with RowStreamer(ITEM, tmp_path) as streamer:
            for step in (1, 1):
                streamer.end_step(step)

    with pytest.raises(StepWentBack):
        loop()
    with Replica(str(tmp_path)) as replica:
        replica.apply_available()
        assert not replica.ended
    with closing(FileTransport(str(tmp_path))) as transport:
        transport.claim()  # it was given back
