"""Cuts, one by one: what each says, and what happens to rows that could not be published."""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.files import DiskFull
from pipeline.stream import BacklogLeft, RowStreamer, StreamerOptions, StreamError, StreamIdentity
from pipeline.wire import (
    CommitFrame,
    CutPosition,
    DenseFrame,
    FileTransport,
    Frame,
    HeaderFrame,
    RowsFrame,
    TableRows,
    decode_frame,
)
from tests.stream.dict_replica import DictReplica
from tests.stream.list_transport import ListTransport
from tests.stream.memory_source import MemorySource

IDENTITY = StreamIdentity("run-1", "trainer", 3)


class Bench:
    def __init__(self, codec: str = "fp32", transport: Any = None, **options: Any) -> None:
        self.source = MemorySource(codec=codec, generation=3)
        self.transport = transport or ListTransport()
        now = itertools.count(5000)
        self.streamer = RowStreamer(
            self.source, self.transport, IDENTITY, StreamerOptions(**options), clock=lambda: next(now)
        )
        self.streamer.open()
        self.source.on_step = lambda step, ids: self.streamer.add(step, 100 + step, ids)

    def frames(self) -> list[Any]:
        """What was published since the last call."""
        new = [decode_frame(data) for data in self.transport.frames]
        self.transport.frames.clear()
        return new


def parts_of(frames: Sequence[Frame]) -> list[TableRows]:
    return [part for frame in frames if isinstance(frame, RowsFrame) for part in frame.rows]


def test_a_stream_begins_with_a_header_that_describes_everything() -> None:
    bench = Bench("fp16")
    (header,) = bench.frames()
    assert isinstance(header, HeaderFrame)
    assert (header.run_id, header.writer, header.generation, header.epoch) == ("run-1", "trainer", 3, "memory")
    assert [(table.spec, table.codec) for table in header.tables] == [(one, "fp16") for one in bench.source.specs]


def test_a_cut_coalesces_its_steps_and_says_when_each_ended() -> None:
    bench = Bench()
    bench.frames()
    for _ in range(3):
        bench.source.train({"users": [1, 2], "items": [7]})
    bench.streamer.cut()
    rows = bench.frames()
    commit = rows.pop()
    assert [part.table for part in parts_of(rows)] == ["users", "items"]
    assert [part.ids_n.tolist() for part in parts_of(rows)] == [[1, 2], [7]]
    assert isinstance(commit, CommitFrame)
    assert (commit.position, commit.previous, commit.step) == (CutPosition(3, 1), CutPosition(0, 0), 3)
    assert (commit.num_frames, commit.num_rows, commit.kind) == (1, 3, "cut"), "small tables share a frame"
    assert commit.ended_k2.tolist() == [[1, 101], [2, 102], [3, 103]]
    assert bench.streamer.counters.bytes_if_raw == 3 * 4 * (2 * 3 + 8)


def test_frames_hold_a_bounded_number_of_rows() -> None:
    bench = Bench(chunk_rows=10)
    bench.frames()
    bench.source.train({"items": range(25)})
    bench.streamer.cut()
    rows = [frame for frame in bench.frames() if isinstance(frame, RowsFrame)]
    assert [len(part.ids_n) for part in parts_of(rows)] == [10, 10, 5]
    assert [frame.number for frame in rows] == [0, 1, 2]


def test_frames_of_long_rows_stay_within_what_readers_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.stream.cut.MAX_FRAME_BYTES", 200)
    bench = Bench(chunk_rows=1000)
    bench.frames()
    bench.source.train({"items": range(10), "users": range(10)})
    bench.streamer.cut()
    rows = [frame for frame in bench.frames() if isinstance(frame, RowsFrame)]
    sizes = [[(part.table, len(part.ids_n)) for part in frame.rows] for frame in rows]
    # 28 bytes a user, 48 an item; three users take 3 / 7 of a frame, which leaves room for 2 of 4 items.
    assert sizes == [[("users", 7)], [("users", 3), ("items", 2)], [("items", 4)], [("items", 4)]]


def test_nothing_is_published_while_no_step_ended() -> None:
    bench = Bench()
    bench.frames()
    assert bench.streamer.cut() is None
    assert bench.frames() == []


def test_a_step_that_changed_nothing_still_moves_the_replica() -> None:
    bench = Bench()
    bench.source.train({})
    commit = bench.streamer.cut()
    assert commit is not None
    assert (commit.step, commit.num_frames, commit.digest) == (1, 0, 0)
    replica = DictReplica()
    assert [replica.feed(data) for data in bench.transport.frames] == [False, True]
    assert replica.step == 1


def test_a_row_that_the_source_holds_no_more_becomes_a_tombstone() -> None:
    bench = Bench()
    bench.source.train({"items": [1, 2, 3]})
    bench.streamer.cut()
    bench.source.train({"items": [3]}, forget={"items": [1]})
    bench.frames()
    bench.streamer.cut()
    *rows, commit = bench.frames()
    (part,) = parts_of(rows)
    assert (part.ids_n.tolist(), part.tombstones_m.tolist()) == ([3], [1])
    assert (commit.num_rows, commit.num_tombstones) == (1, 1)
    assert bench.streamer.counters.tombstones == 1


def test_dense_weights_ride_in_pieces_when_asked() -> None:
    bench = Bench(dense=True, dense_frame_bytes=1024)
    bench.source.dense_history[0] = {"mlp": np.arange(1000.0)}
    bench.source._new_dense = lambda: {"mlp": np.arange(1000.0) + bench.source.step}  # type: ignore[method-assign]
    bench.source.train({"users": [1]})
    bench.streamer.cut()
    pieces = [frame for data in bench.transport.frames if isinstance(frame := decode_frame(data), DenseFrame)]
    assert len(pieces) == 8
    replica = DictReplica()
    for data in bench.transport.frames:
        replica.feed(data)
    assert replica.dense["mlp"].tolist() == (np.arange(1000.0) + 1).tolist()


def test_rows_of_an_abandoned_cut_go_into_the_next_and_its_number_is_not_used_again() -> None:
    bench = Bench(chunk_rows=2)
    bench.frames()
    bench.source.train({"items": range(5)})
    bench.source.lost_reads, bench.source.reads_before_loss = 1, 2
    assert bench.streamer.cut() is None
    assert [type(frame) for frame in bench.frames()] == [RowsFrame], "frames, but no commit"
    assert bench.streamer.counters.abandoned == 1
    bench.source.train({"items": [9]})
    commit = bench.streamer.cut()
    assert commit is not None
    assert (commit.position, commit.previous) == (CutPosition(3, 2), CutPosition(0, 0))
    assert commit.num_rows == 6
    assert commit.ended_k2[:, 0].tolist() == [1, 2]


def test_a_failing_transport_loses_no_rows() -> None:
    bench = Bench()
    bench.source.train({"items": range(5)})
    bench.transport.fails = DiskFull("somewhere", 100)
    with pytest.raises(DiskFull):
        bench.streamer.cut()
    commit = bench.streamer.cut()
    assert commit is not None
    assert commit.num_rows == 5
    assert all(snapshot.closed for snapshot in bench.source.snapshots)


def test_a_fence_that_fails_loses_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(dense=True)
    bench.source.train({"items": range(5)})

    def fail() -> Any:
        raise MemoryError("no room for the dense weights")

    with monkeypatch.context() as patch:
        patch.setattr(bench.source, "dense", fail)
        with pytest.raises(MemoryError):
            bench.streamer.cut()
        with pytest.raises(MemoryError):
            bench.streamer.snapshot_cut()
    commit = bench.streamer.cut()
    assert commit is not None
    assert commit.num_rows == 5
    assert all(snapshot.closed for snapshot in bench.source.snapshots)


def test_drain_publishes_the_last_batch() -> None:
    bench = Bench()
    for step in range(5):
        bench.source.train({"items": [step]})
    bench.streamer.drain()
    assert bench.streamer.committed_step == 5
    assert bench.streamer.changed.num_steps == bench.streamer.changed.count == 0
    bench.streamer.drain()


def test_drain_says_what_is_left_when_snapshots_are_lost_for_good() -> None:
    bench = Bench()
    bench.source.train({"items": range(5)})
    bench.source.lost_reads = 1000
    with pytest.raises(BacklogLeft, match="5 changed rows up to step 1 are not published: 8 cuts in a row"):
        bench.streamer.drain()


def test_the_end_of_a_run_is_marked_behind_its_last_rows() -> None:
    bench = Bench()
    bench.source.train({"items": range(5)})
    bench.streamer.finish()
    commits = [frame for frame in bench.frames() if isinstance(frame, CommitFrame)]
    assert [(commit.step, commit.num_rows, commit.end) for commit in commits] == [(1, 5, False), (1, 0, True)]
    assert commits[1].previous == commits[0].position


def test_a_snapshot_cut_names_every_row_at_the_step_of_an_ordinary_cut() -> None:
    bench = Bench()
    bench.source.train({"items": range(5), "users": [1]})
    bench.streamer.cut()
    bench.source.train({"items": [2]})
    bench.frames()
    bench.transport.retained = 0
    snapshot = bench.streamer.snapshot_cut()
    ordinary = next(frame for frame in bench.frames() if isinstance(frame, CommitFrame))
    assert snapshot is not None
    assert (snapshot.position, snapshot.step) == (ordinary.position, ordinary.step) == (CutPosition(3, 2), 2)
    assert (ordinary.num_rows, snapshot.num_rows) == (1, 6)
    assert snapshot.previous == ordinary.previous
    assert len(snapshot.ended_k2) == 0


def test_an_abandoned_snapshot_cut_trims_nothing() -> None:
    bench = Bench()
    bench.source.train({"items": range(5)})
    bench.streamer.cut()
    bench.source.lost_reads = 1
    assert bench.streamer.snapshot_cut() is None
    assert bench.transport.retained == 0
    assert bench.streamer.counters.abandoned == 1
    assert bench.streamer.snapshot_cut() is not None
    assert bench.transport.retained > 0


def test_a_stream_goes_on_behind_the_cut_it_is_told() -> None:
    source, transport = MemorySource(generation=4), ListTransport()
    source.step, source.history[7] = 7, source.history[0]
    streamer = RowStreamer(
        source, transport, StreamIdentity("run-1", "trainer", 4), previous=CutPosition(3, 9), previous_step=7
    )
    streamer.open()
    source.on_step = lambda step, ids: streamer.add(step, step, ids)
    source.train({"items": [1]})
    commit = streamer.cut()
    assert commit is not None
    assert (commit.position, commit.previous, commit.step) == (CutPosition(4, 1), CutPosition(3, 9), 8)


def test_ids_of_tables_that_are_not_streamed_are_passed_over() -> None:
    bench = Bench()
    bench.streamer.add(1, 1, {"unknown": np.arange(5)})
    bench.source.step = 1
    bench.source.history[1] = bench.source.history[0]
    commit = bench.streamer.cut()
    assert commit is not None
    assert commit.num_rows == 0
    assert bench.streamer.counters.bytes_if_raw == 0


def test_a_source_that_freezes_another_step_is_caught() -> None:
    bench = Bench()
    bench.source.train({"items": [1]})
    freeze = bench.source.freeze

    def other_step(changed: Any, *, changed_since: int) -> Any:
        snapshot = freeze(changed, changed_since=changed_since)
        snapshot.step += 1
        return snapshot

    bench.source.freeze = other_step  # type: ignore[method-assign]
    with pytest.raises(StreamError, match="froze step 2 at the fence of step 1"):
        bench.streamer.cut()


def test_training_cuts_and_snapshot_cuts_on_threads_of_their_own_make_one_stream() -> None:
    bench = Bench(chunk_rows=4)
    rng, ended, errors = np.random.default_rng(3), threading.Event(), []

    def repeat(act: Callable[[], object]) -> None:
        try:
            while not ended.is_set():
                act()
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=repeat, args=(act,))
        for act in (bench.streamer.cut, bench.streamer.snapshot_cut, bench.streamer.changed.compact)
    ]
    for thread in threads:
        thread.start()
    for _ in range(400):
        bench.source.train({"items": rng.integers(0, 30, 5).tolist(), "users": rng.integers(0, 5, 2).tolist()})
    ended.set()
    for thread in threads:
        thread.join()
    bench.streamer.finish()
    assert not errors
    replica = DictReplica()
    for data in bench.transport.frames:
        if replica.feed(data):
            assert replica.tables == bench.source.history[replica.step]
    assert replica.step == 400
    assert replica.ended == [(step, 100 + step) for step in range(1, 401)]


def test_a_stream_in_files_is_what_a_replica_reads(tmp_path: Any) -> None:
    transport = FileTransport(str(tmp_path / "stream"))
    bench = Bench("fp16", transport)
    for step in range(20):
        bench.source.train({"items": [step, step + 1], "users": [step % 3]})
        bench.streamer.cut()
    bench.streamer.snapshot_cut()
    bench.streamer.finish()
    replica, subscription = DictReplica(), FileTransport(str(tmp_path / "stream")).subscribe(None)
    while batch := subscription.next(0):
        for _, data in batch:
            replica.feed(data)
    assert replica.step == 20
    assert {name: len(rows) for name, rows in replica.tables.items()} == {"users": 3, "items": 21}
    transport.close()


def test_a_full_disk_while_streaming_leaves_what_was_published_readable(tmp_path: Any) -> None:
    transport = FileTransport(str(tmp_path / "stream"))
    bench = Bench(transport=transport)
    bench.source.train({"items": range(5)})
    bench.streamer.cut()
    bench.source.train({"items": range(5)})
    writer: Any = transport._writer
    write = writer._file.write
    writer._file.write = lambda *data: (_ for _ in ()).throw(DiskFull("stream", sum(map(len, data)), errno.ENOSPC))
    with pytest.raises(DiskFull):
        bench.streamer.cut()
    replica, subscription = DictReplica(), transport.subscribe(None)
    for _, data in subscription.next(0) or []:
        replica.feed(data)
    assert replica.step == 1
    writer._file.write = write
    assert bench.streamer.cut() is not None
    for _, data in subscription.next(0) or []:
        replica.feed(data)
    assert replica.tables == bench.source.history[2]
    transport.close()
