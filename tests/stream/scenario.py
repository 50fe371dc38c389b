"""A random life of a stream, and what must hold in it. Raises AssertionError where a guarantee is broken.

The life: steps that update, forget or change nothing; cuts, some of them while training goes on, some of whose snapshots are lost;
snapshot cuts; a clean end. The checks: a replica is, after every single frame, the source at the end of one step (G3), and at the
end the source itself (G2); so is a replica that starts late; every step's end is told once; what was promised durable was synced.
"""

from __future__ import annotations

from collections.abc import Mapping
from unittest.mock import patch

import numpy as np

from pipeline.rows.codec import find_codec
from pipeline.stream import GroupedIds, RowStreamer, StreamerOptions, StreamIdentity, training
from pipeline.stream.packing import Shuffle
from pipeline.wire import START, CommitFrame
from pipeline.wire.reading import FrameReader
from tests.stream.dict_replica import DictReplica
from tests.stream.list_transport import ListTransport
from tests.stream.memory_source import Int64s, MemorySource, Tables

SHUFFLES: tuple[Shuffle, ...] = ("auto", "always", "never")
IDS = (-(1 << 63), (1 << 63) - 1, -1, 0, *range(1, 40))


def grouped(ids: Mapping[str, Int64s]) -> GroupedIds:
    """As a step tells them."""
    starts = np.cumsum([0, *map(len, ids.values())], dtype=np.int64)
    return GroupedIds(tuple(ids), np.concatenate(list(ids.values())), starts)


class Life:
    def __init__(self, seed: int, codec: str = "fp32", chunk_rows: int = 5) -> None:
        self.rng = np.random.default_rng(seed)
        self.source = MemorySource(codec=codec, seed=seed, encodes=seed % 3 > 0)
        self.transport = ListTransport()
        chunk_rows *= 1 + 7 * (seed % 5 > 2)  # so that some cuts are one frame
        options = StreamerOptions(
            chunk_rows=chunk_rows,
            dense=bool(seed % 2),
            dense_frame_bytes=1024,
            shuffle=SHUFFLES[seed % 3],
            zstd_level=(-1, 1)[seed // 3 % 2],
            dictionary_bytes=1024 * (seed % 7 > 3),
        )
        self.streamer = RowStreamer(self.source, self.transport, StreamIdentity("run", "trainer", 1), options)
        self.streamer.open()
        self.source.on_step = lambda step, ids: self.streamer.add(step, 1000 + step, grouped(ids))
        self.raw_bytes = 0

    def train(self) -> None:
        ids, forget = {}, {}
        for table in ("users", "items"):
            ids[table] = self.rng.choice(IDS, self.rng.integers(0, 12)).tolist()
            if self.rng.random() < 0.2:
                forget[table] = [k for k in self.rng.choice(IDS, 3).tolist() if k not in ids[table]]
        if self.rng.random() < 0.15:
            ids, forget = {}, {}
        self.source.train(ids, forget)
        changed = {table: {*ids.get(table, ()), *forget.get(table, ())} for table in ("users", "items")}
        self.raw_bytes += 4 * (3 * len(changed["users"]) + 8 * len(changed["items"]))

    def live(self, events: int) -> None:
        acts = (self.train, self.train, self.streamer.cut, self.cut_while_training, self.cut_that_is_lost)
        for _ in range(events):
            if self.rng.random() < 0.1:
                self.snapshot_cut()
            elif self.rng.random() < 0.1:
                self.streamer.changed.compact()
            else:
                acts[int(self.rng.integers(len(acts)))]()

    def cut_while_training(self) -> None:
        self.source.on_read = self.train
        self.streamer.cut()
        self.source.on_read = lambda: None

    def cut_that_is_lost(self) -> None:
        abandoned = self.streamer.counters.abandoned
        if self.rng.random() < 0.3:
            self.source.lost_reads, self.source.reads_before_loss = 1, int(self.rng.integers(4))
            committed = self.streamer.cut() is not None
            lost = self.source.lost_reads == 0
            assert self.streamer.counters.abandoned == abandoned + int(lost)
            assert not (committed and lost)
            self.source.lost_reads = self.source.reads_before_loss = 0

    def snapshot_cut(self) -> None:
        """Training and ordinary cuts go on while it is read."""

        def meanwhile() -> None:
            if self.rng.random() < 0.4:
                self.train()
                self.source.on_read = lambda: None
                if not self.streamer._cutting.locked():
                    self.streamer.cut()
                self.source.on_read = meanwhile

        self.source.on_read = meanwhile
        self.streamer.snapshot_cut()
        self.source.on_read = lambda: None

    def check(self) -> None:
        replica = DictReplica()
        self.check_prefixes(replica, self.transport.frames)
        self.check_equal(replica)
        assert replica.gaps == replica.snapshots_loaded == 0
        assert replica.ended == [(step, 1000 + step) for step in range(1, self.source.step + 1)]
        self.check_late_replica()
        self.check_counters()
        assert all(snapshot.closed for snapshot in self.source.snapshots)
        assert self.transport.synced == len(self.transport.frames)

    def check_prefixes(self, replica: DictReplica, frames: list[bytes]) -> None:
        step = replica.step
        for number, data in enumerate(frames):
            if moved := replica.feed(data):
                assert step <= (step := replica.step), "the replica went back"
            if replica.position != START and (moved or not number % 8):
                assert replica.tables == self.as_sent(step), "not the source at the end of a step"
                if self.streamer.options.dense:
                    self.check_dense(replica)

    def check_dense(self, replica: DictReplica) -> None:
        expected = self.source.dense_history[replica.step]
        assert {n: a.tobytes() for n, a in replica.dense.items()} == {n: a.tobytes() for n, a in expected.items()}

    def check_equal(self, replica: DictReplica) -> None:
        assert replica.step == self.source.step, "the last steps are missing"
        assert replica.tables == self.as_sent(self.source.step)

    def check_late_replica(self) -> None:
        replica = DictReplica()
        for _ in range(2):
            replica.read_again()
            self.check_prefixes(replica, self.transport.held)
        self.check_equal(replica)

    def check_counters(self) -> None:
        counters = self.streamer.counters
        reader = FrameReader()
        frames = [reader.read(data) for data in self.transport.frames]
        commits = [frame for frame in frames if isinstance(frame, CommitFrame)]
        assert counters.rows_streamed == sum(commit.num_rows for commit in commits)
        assert counters.cuts == sum(not commit.snapshot for commit in commits)
        assert counters.snapshot_cuts == sum(commit.snapshot for commit in commits)
        assert counters.frames == len(frames)
        assert counters.bytes_streamed == sum(len(data) for data in self.transport.frames)
        assert counters.bytes_if_raw == self.raw_bytes
        assert [commit.end for commit in commits if not commit.snapshot].count(True) == 1

    def as_sent(self, step: int) -> Tables:
        codec = find_codec(self.source.codec)
        if codec.name == "fp32":
            return self.source.history[step]
        sent: Tables = {}
        for name, rows in self.source.history[step].items():
            dim = self.source.layouts[name].dim
            weights = np.frombuffer(b"".join(row[0] for row in rows.values()), dtype=np.float32).reshape(-1, dim)
            decoded = codec.decode(codec.encode(weights), dim)
            sent[name] = {key: (decoded[n].tobytes(), row[1]) for n, (key, row) in enumerate(rows.items())}
        return sent


def live_and_check(seed: int, codec: str = "fp32", events: int = 40) -> None:
    with patch.object(training, "NUM_SAMPLES", 20):
        life = Life(seed, codec)
        life.live(events)
        life.train()
        life.streamer.finish()
    life.check()
