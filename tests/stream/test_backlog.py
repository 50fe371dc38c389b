"""A changed set that collapses and a transport that fails, in any order: a replica still is the trainer (G2, G3), in bounded memory."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.stream import ChangedSet, GroupedIds, StreamerOptions, StreamIdentity, find_tail
from pipeline.stream import RowStreamer as OwnStreamer
from pipeline.stream.outlet import of_transport
from pipeline.stream.streamer import RowStreamer
from pipeline.wire import CommitFrame, CutPosition, HeaderFrame, TransportError, decode_frame
from tests.stream.broken_transport import FAILURES, BrokenTransport
from tests.stream.dict_replica import DictReplica
from tests.stream.memory_source import MemorySource
from tests.stream.scenario import IDS, grouped

IDENTITY = StreamIdentity("run", "trainer", 1)


def small(backlog_bytes: int, chunk_rows: int = 1000) -> StreamerOptions:
    """Options with less room than anyone may ask for."""
    return StreamerOptions.model_construct(backlog_bytes=backlog_bytes, chunk_rows=chunk_rows)


class Life:
    """A random life beside a replica that hears every frame as it appears. ``forgets``: rows end, and the source lists no changes."""

    def __init__(self, seed: int, *, forgets: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.source = MemorySource(seed=seed, encodes=bool(seed % 2), lists_changes=not forgets)
        self.forgets, self.replica, self.last = forgets, DictReplica(), 0
        self.transport = BrokenTransport(self.hear)
        self.streamer = RowStreamer(self.source, self.transport, IDENTITY, small(2500, chunk_rows=7))
        self.source.on_step = lambda step, ids: self.streamer.add(step, 1000 + step, grouped(ids))

    def hear(self, data: bytes) -> None:
        if self.replica.feed(data):
            assert self.replica.tables == self.source.history[self.replica.step], "not the source at the end of a step"
            assert self.replica.step >= self.last, "the replica went back"
            self.last = self.replica.step

    def train(self) -> None:
        ids = {table: self.rng.choice(IDS, self.rng.integers(0, 12)).tolist() for table in ("users", "items")}
        forget: dict[str, list[int]] = {}
        if self.forgets and self.rng.random() < 0.3:
            forget = {"items": [k for k in self.rng.choice(IDS, 3).tolist() if k not in ids["items"]]}
        self.source.train(ids, forget)

    def cut(self) -> None:
        self.try_to(self.streamer.cut)

    def snapshot_cut(self) -> None:
        self.try_to(self.streamer.snapshot_cut)

    def try_to(self, act: Callable[[], object]) -> None:
        if self.rng.random() < 0.2:
            self.source.lost_reads = 1
        if self.rng.random() < 0.3:
            self.source.on_read = self.train
        failed = None
        try:
            act()
        except (TransportError, OSError) as error:
            failed = error
        self.source.lost_reads, self.source.on_read = 0, lambda: None
        assert failed is None or of_transport(failed)

    def break_it(self) -> None:
        what = self.rng.integers(7)
        if what == 0:
            self.transport.lose()
        elif what < 3:
            self.transport.is_down = not self.transport.is_down
        else:
            self.transport.next_failure = FAILURES[self.rng.integers(4)]

    def live(self, events: int) -> None:
        acts = (self.train, self.train, self.train, self.cut, self.snapshot_cut, self.break_it)
        weights = np.array([3, 3, 3, 3, 1, 2]) / 15
        for _ in range(events):
            acts[int(self.rng.choice(len(acts), p=weights))]()
            if self.rng.random() < 0.1:
                self.streamer.changed.compact()

    def end(self) -> None:
        self.train()
        self.transport.is_down, self.transport.next_failure = False, None
        for _ in range(2):  # a storage that has lost its data says so at the next call
            try:
                self.streamer.finish()
                break
            except TransportError:
                continue
        assert self.replica.step == self.source.step, "the last steps are missing"
        assert self.replica.tables == self.source.state
        late = DictReplica()
        for data in (*self.transport.held, *self.transport.held):
            late.feed(data)
        assert late.tables == self.source.state, "a replica that starts late has other rows"
        told = {step for step, _ in self.replica.ended}
        assert len(told) + self.streamer.changed.untimed_steps >= self.source.step, "the end of a step was not told"
        assert not self.streamer.is_behind
        assert all(snapshot.closed for snapshot in self.source.snapshots)


@pytest.mark.parametrize("forgets", [False, True], ids=["listed", "forgetting"])
def test_whatever_fails_and_collapses_a_replica_is_the_source_at_each_step_it_shows(forgets: bool) -> None:
    collapses = lost = 0
    for seed in range(25):
        life = Life(seed, forgets=forgets)
        life.live(60)
        life.end()
        collapses += life.streamer.changed.collapses
        lost += life.transport.epoch != "life-1"
    assert collapses > 25, "hardly anything collapsed: this shows nothing"
    assert lost > 5, "hardly a storage lost its data: this shows nothing"


class Bench:
    def __init__(self, backlog_bytes: int = 1200, *, lists_changes: bool = True) -> None:
        self.source, self.replica = MemorySource(lists_changes=lists_changes), DictReplica()
        self.transport = BrokenTransport(self.replica.feed)
        self.streamer = RowStreamer(self.source, self.transport, IDENTITY, small(backlog_bytes))
        self.source.on_step = lambda step, ids: self.streamer.add(step, 1000 + step, ids)

    def train_until_it_collapses(self) -> None:
        for step in range(20):
            self.source.train({"items": [step, step + 1], "users": [1]})
        assert self.streamer.changed.collapses == 1
        assert self.streamer.changed.count >= 23

    def commits(self) -> list[CommitFrame]:
        frames = map(decode_frame, self.transport.frames)
        return [frame for frame in frames if isinstance(frame, CommitFrame)]


def test_a_collapsed_set_is_listed_again_by_the_step_of_the_last_cut() -> None:
    bench = Bench()
    bench.source.train({"items": range(100, 110)})
    bench.streamer.cut()
    bench.train_until_it_collapses()
    commit = bench.streamer.cut()
    assert commit is not None
    assert (commit.kind, commit.num_rows) == ("cut", 21 + 1), "rows that were published before are sent again"
    assert bench.replica.tables == bench.source.state
    assert bench.streamer.changed.count == 0


def test_where_changes_cannot_be_listed_a_snapshot_cut_stands_alone() -> None:
    bench = Bench(lists_changes=False)
    bench.source.train({"items": range(100, 110)})
    first = bench.streamer.cut()
    bench.train_until_it_collapses()
    bench.source.train({}, forget={"items": [100]})
    commit = bench.streamer.cut()
    assert first is not None
    assert commit is not None
    assert (commit.kind, commit.previous, commit.num_rows) == ("snapshot", first.position, 9 + 21 + 1)
    assert bench.replica.tables == bench.source.state, "what ended while the set was collapsed is still held"
    bench.source.train({"items": [5]})
    following = bench.streamer.cut()
    assert following is not None
    assert (following.kind, following.previous, following.num_rows) == ("cut", commit.position, 1)
    assert bench.replica.tables == bench.source.state


def test_a_snapshot_cut_that_stands_alone_is_the_tail_of_a_stream() -> None:
    bench = Bench(lists_changes=False)
    bench.source.train({"items": [3]})
    bench.streamer.cut()
    bench.streamer.snapshot_cut()
    together = find_tail([bench.transport.frames])
    assert together is not None
    assert not together.alone, "a snapshot cut that goes with an ordinary one"
    bench.train_until_it_collapses()
    alone = bench.streamer.cut()
    tail = find_tail([bench.transport.frames])
    assert alone is not None
    assert tail is not None
    assert (tail.commit.position, tail.commit.kind) == (alone.position, "snapshot")
    assert (tail.alone, tail.whole) == (True, False)


def test_a_storage_that_lost_its_data_gets_a_header_and_every_row() -> None:
    bench = Bench(1 << 20)
    bench.source.train({"items": range(10)})
    bench.streamer.cut()
    bench.transport.lose()
    bench.source.train({"items": [20]})
    with pytest.raises(TransportError, match="this is life-2"):
        bench.streamer.cut()
    assert bench.streamer.is_behind
    bench.streamer.cut()
    header = decode_frame(bench.transport.frames[0])
    assert isinstance(header, HeaderFrame)
    assert header.epoch == "life-2"
    late = DictReplica()
    for data in bench.transport.frames * 2:
        late.feed(data)
    assert late.tables == bench.source.state
    assert bench.replica.tables == bench.source.state
    assert not bench.streamer.is_behind


def test_a_storage_that_is_absent_at_the_start_gets_all_that_was_trained_without_it() -> None:
    bench = Bench(1 << 20)
    bench.transport.is_down = True
    bench.source.train({"items": range(10)})
    with pytest.raises(TransportError):
        bench.streamer.cut()
    bench.source.train({"items": [20]})
    bench.transport.is_down = False
    commit = bench.streamer.cut()
    assert commit is not None
    assert (commit.position, commit.num_rows, commit.ended_k2[:, 0].tolist()) == (CutPosition(1, 1), 11, [1, 2])


def test_an_error_of_the_source_is_not_taken_for_one_of_the_transport() -> None:
    bench = Bench(1 << 20)
    bench.source.train({"items": range(10)})

    def fail() -> None:
        raise OSError("the disk under the rows failed")

    bench.source.on_read = fail
    with pytest.raises(OSError, match="under the rows") as failed:
        bench.streamer.cut()
    assert not of_transport(failed.value)


def held_bytes() -> int:
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.parametrize("waits", [False, True], ids=["while it is down", "while a cut hangs"])
def test_a_stalled_transport_takes_no_more_memory_than_it_may(waits: bool) -> None:
    """Two million distinct rows change, four times as many as have room; each step's ids lie in a block with three times as much else."""
    limit, step_ids, steps = 8 << 20, 20_000, 100
    changed = ChangedSet(limit)
    taken = None
    tracemalloc.start()
    try:
        before = held_bytes()
        most = 0
        for step in range(1, steps + 1):
            block = np.arange(step * step_ids, step * step_ids + 4 * step_ids)
            starts = np.array([0, step_ids])
            changed.add(step, step, GroupedIds(("t",), block[:step_ids], starts), step_ids)
            del block
            if changed.crowded:
                tracemalloc.reset_peak()
                changed.compact()
                most = max(most, tracemalloc.get_traced_memory()[1] - before)
            most = max(most, held_bytes() - before)
            if waits and step == 10:
                taken = changed.distinct(changed.take())
        assert most <= limit
        assert changed.collapses == 1
    finally:
        tracemalloc.stop()
    if taken is not None:
        assert not taken.collapsed, "what is being published was let go"
        changed.put_back(taken)
    assert changed.take().collapsed


def test_steps_end_while_a_cut_hangs() -> None:
    """G4: nothing that trains waits for the transport."""
    bench = Bench(1 << 20)
    bench.transport.blocked = threading.Event()
    bench.source.train({"items": [1]})
    cutting = threading.Thread(target=bench.streamer.cut)
    cutting.start()
    assert bench.transport.publishing.wait(60)
    for step in range(50):
        bench.source.train({"items": [step]})
    assert bench.source.step == 51
    assert cutting.is_alive()
    bench.transport.blocked.set()
    cutting.join(60)
    bench.streamer.finish()
    assert bench.replica.tables == bench.source.state


def test_rows_of_a_loop_without_a_store_are_listed_by_what_its_steps_told() -> None:
    """Rows that were pushed, some that ended among them: nothing but the told ids knows of these."""
    replica = DictReplica()
    streamer = OwnStreamer({"item": {"dim": 2}}, BrokenTransport(replica.feed), options=small(1200), every=None)
    held: dict[int, float] = {}
    with streamer:
        for step in range(1, 31):
            streamer.push("item", [step, step + 1], np.full((2, 2), step, dtype=np.float32))
            held |= {step: float(step), step + 1: float(step)}
            if step % 7 == 0:
                streamer.delete("item", [step - 3])
                del held[step - 3]
            streamer.end_step(step)
        assert streamer.changed.collapses == 1
        streamer.cut()
        found = {k: np.frombuffer(weights, dtype=np.float32)[0] for k, (weights, _) in replica.tables["item"].items()}
        assert found == held
