"""A random life of a stream in shards, each of whose transports fails now and then, and whose trainer dies now and then and goes on, to
the same rows or as a fork. Raises AssertionError where a guarantee is broken.

The checks: whichever shard's frames come first, a replica is the source at the end of one step, after every frame; it never goes back but
where a fork takes it; one that begins late, where retention left it, comes to the same; who goes on finds the cut that all shards have,
with the digest of the rows that it comes to again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise

import numpy as np

from pipeline.rows.digest import rows_digest
from pipeline.rows.version import MAX_STEP
from pipeline.stream import Journal, RowStreamer, StreamerOptions, StreamIdentity
from pipeline.wire import START, Position
from pipeline.wire.digest import MASK, tombstones_digest
from tests.stream.joined_replica import JoinedDictReplica
from tests.stream.list_transport import ListTransport
from tests.stream.memory_source import Int64s, MemorySource

IDS = (-(1 << 63), (1 << 63) - 1, -1, 0, *range(1, 30))
TABLES = ("users", "items")
NO_IDS = np.empty(0, dtype=np.int64)


class ShakyTransport(ListTransport):
    """``chance``: how often ``publish`` fails, with nothing, half, or all of it published."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng, self.chance = np.random.default_rng(seed), 0.0

    def publish(self, frames: Sequence[bytes], *, sync: bool) -> Position:
        if self.rng.random() < self.chance:
            self.frames += frames[: int(self.rng.choice([0, len(frames) // 2, len(frames)]))]
            raise OSError("the connection broke")
        return super().publish(frames, sync=sync)

    def newest_first(self) -> Iterator[list[bytes]]:
        """A piece for each generation."""
        ends = [*sorted(at for at in self._headers if at > self.retained), len(self.frames)]
        whole, start = self.held, len(self.held) - len(self.frames)
        bounds = [0, *(start + at for at in ends)]
        pieces = [whole[low:high] for low, high in pairwise(bounds)]
        yield from reversed([piece for piece in pieces if piece])


class ShardedLife:
    def __init__(self, seed: int) -> None:
        self.rng, self.seed = np.random.default_rng(seed), seed
        self.forgets = seed % 4 == 3
        """Rows end too; then a fork takes all back, for no checkpoint tells which ended."""
        self.transports = [ShakyTransport(seed + k) for k in range(2 + seed % 2)]
        self.near = JoinedDictReplica(len(self.transports))
        self.fed = [0] * len(self.transports)
        self.source = MemorySource(seed=seed, encodes=True)
        self.saved = self.shown_generation = self.generation = 0
        self.forked = 1
        """The generation in which the source's history began."""
        self._begin()

    def _begin(self) -> None:
        self.generation += 1
        options = StreamerOptions(chunk_rows=3, dense=bool(self.seed % 2), dense_frame_bytes=1024)
        identity = StreamIdentity("run", "trainer", self.generation)
        self.streamer = RowStreamer(self.source, self.transports, identity, options)
        self.streamer.open()
        self.source.on_step = lambda step, ids: self.streamer.add(step, step, ids)

    def live(self, events: int) -> None:
        acts = (self.train, self.train, self.cut, self.cut, self.cut, self.snapshot_cut, self.save)
        for _ in range(events):
            acts[int(self.rng.integers(len(acts)))]()
            self.check()

    def train(self) -> None:
        ids = {name: self.rng.choice(IDS, self.rng.integers(0, 9)).tolist() for name in TABLES}
        forget = {name: [i for i in self.rng.choice(IDS, 1).tolist() if i not in ids[name]] for name in TABLES}
        self.source.train(ids, forget if self.forgets and self.rng.random() < 0.2 else {})

    def cut(self) -> None:
        self._shake(0.15)
        with suppress(OSError):
            self.streamer.cut()
        self._shake(0)

    def snapshot_cut(self) -> None:
        self._shake(0.05)
        with suppress(OSError):
            self.streamer.snapshot_cut()
        self._shake(0)

    def save(self) -> None:
        self.saved = self.source.step

    def _shake(self, chance: float) -> None:
        for transport in self.transports:
            transport.chance = chance

    def go_on(self) -> None:
        """A new process comes to the same rows: nothing is published up to the last cut that all shards have; there is the proof."""
        self._die()
        self._begin()
        tail = Journal(self.transports).tail()
        self.check()
        assert (START if tail is None else tail.commit.position) == self.near.position
        if tail is not None:
            self.streamer.committed, self.streamer.committed_step = tail.commit.position, tail.commit.step
            assert not tail.whole or self._digest(tail.shown.step, tail.ids, tail.dead) == tail.shown.digest
        for step in range(self.streamer.committed_step + 1, self.source.step + 1):
            before, after = self.source.history[step - 1], self.source.history[step]
            changed = {
                name: [i for i in {*before[name], *after[name]} if before[name].get(i) != after[name].get(i)]
                for name in TABLES
            }
            self.streamer.add(step, step, {name: np.array(ids, dtype=np.int64) for name, ids in changed.items()})
        self.check()

    def fork(self) -> None:
        self._die()
        self._fork()

    def _fork(self) -> None:
        before, step = self.source, self.saved
        self.forked = self.generation + 1
        self.source = MemorySource(generation=self.forked, seed=self.seed + self.forked, step=step)
        self.source.history[step], self.source.dense_history[step] = before.history[step], before.dense_history[step]
        self._begin()
        journal = Journal(self.transports)
        tail = journal.tail()
        if tail is not None:
            self.streamer.committed, self.streamer.committed_step = tail.commit.position, tail.commit.step
        common = -1 if self.forgets or tail is None else min(step, tail.commit.step)
        ids = journal.published_since(common)
        if self.rng.random() < 0.6:  # it dies once more, in its rewind cut
            self._shake(0.4)
            with suppress(OSError):
                self.streamer.rewind({name: self._with_held(name, ids, common) for name in TABLES})
                self.saved = step
            self._shake(0)
            self.check()
            self._fork()
            return
        self.streamer.rewind({name: self._with_held(name, ids, common) for name in TABLES})
        self.check()
        assert self.near.step == step

    def _die(self) -> None:
        """In the middle of a cut: of each shard's share, a part is there."""
        self.train()
        before = [len(transport.frames) for transport in self.transports]
        self.streamer.cut()
        for transport, start in zip(self.transports, before, strict=True):
            del transport.frames[int(self.rng.integers(start, len(transport.frames) + 1)) :]

    def _digest(self, step: int, ids: Mapping[str, Int64s], dead: Mapping[str, Int64s]) -> int:
        total = sum(tombstones_digest(name, ids_n) for name, ids_n in dead.items())
        for name, ids_n in ids.items():
            rows = [self.source.history[step][name][row_id] for row_id in ids_n.tolist()]
            payload = np.frombuffer(b"".join(row for row, _ in rows), np.uint8).reshape(len(rows), -1)
            total += rows_digest(name, ids_n, payload, np.array([version for _, version in rows], dtype=np.int64))
        return total & MASK

    def _with_held(self, name: str, ids: Mapping[str, Int64s], common: int) -> Int64s:
        later = [row_id for row_id, (_, version) in self.source.state[name].items() if version & MAX_STEP > common]
        return np.union1d(ids.get(name, NO_IDS), np.array(later, dtype=np.int64))

    def check(self) -> None:
        step = self.near.step
        while left := [k for k, transport in enumerate(self.transports) if self.fed[k] < len(transport.frames)]:
            shard = int(self.rng.choice(left))
            if self.near.feed_shard(shard, self.transports[shard].frames[self.fed[shard]]):
                self._assert_at_a_step(self.near)
            self.fed[shard] += 1
        generation = self.near.position.generation
        assert self.near.step >= step or generation > self.shown_generation, "went back without a fork"
        self.shown_generation = generation
        if self.rng.random() < 0.2:
            self.check_late()

    def check_late(self) -> None:
        late = JoinedDictReplica(len(self.transports))
        for _ in range(2):
            for shard in self.rng.permutation(len(self.transports)).tolist():
                for data in self.transports[shard].held:
                    if late.feed_shard(shard, data):
                        self._assert_at_a_step(late)
        assert late.position == self.near.position

    def _assert_at_a_step(self, replica: JoinedDictReplica) -> None:
        if replica.position != START and replica.position.generation >= self.forked:
            assert replica.tables == self.source.history[replica.step], "not the source at the end of a step"
            if self.seed % 2:
                dense = self.source.dense_history[replica.step]
                assert {n: a.tobytes() for n, a in replica.dense.items()} == {n: a.tobytes() for n, a in dense.items()}


def live_in_shards_and_check(seed: int, lives: int = 4, events: int = 10) -> None:
    life = ShardedLife(seed)
    for _ in range(lives):
        life.live(events)
        (life.fork if life.rng.random() < 0.5 else life.go_on)()
    life.live(events)
    life.train()
    life.streamer.finish()
    life.check()
    life.check_late()
    assert life.near.step == life.source.step
