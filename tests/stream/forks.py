"""A random life of a stream whose trainer dies and goes on from its newest checkpoint with other arithmetic, again and again.

The checks: each rewind cut makes a replica, one that was there all the time and one that begins anew, the source as the checkpoint holds
it; and whatever comes then, it is the source at the end of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.rows.version import MAX_STEP
from pipeline.stream import RowStreamer, StreamerOptions, StreamIdentity, find_tail, published_since
from pipeline.wire import START, CutPosition
from tests.stream.dict_replica import DictReplica
from tests.stream.list_transport import ListTransport
from tests.stream.memory_source import Int64s, MemorySource

IDS = (-(1 << 63), (1 << 63) - 1, -1, 0, *range(1, 30))


class ForkedLife:
    def __init__(self, seed: int) -> None:
        self.rng, self.seed = np.random.default_rng(seed), seed
        self.transport, self.near = ListTransport(), DictReplica()
        self.fed = self.saved = 0
        self.header_at: dict[int, bytes] = {}
        self.source = MemorySource(seed=seed)
        self._begin(START, 0)

    def _begin(self, previous: CutPosition, previous_step: int) -> None:
        identity = StreamIdentity("run", "trainer", self.source.generation)
        options = StreamerOptions(chunk_rows=3, dense=bool(self.seed % 2), dense_frame_bytes=1024)
        self.streamer = RowStreamer(
            self.source, self.transport, identity, options, previous=previous, previous_step=previous_step
        )
        self.header_at[len(self.transport.frames)] = b""
        self.streamer.open()
        self.header_at[max(self.header_at)] = self.transport.header
        self.source.on_step = lambda step, ids: self.streamer.add(step, step, ids)

    def live(self, events: int) -> None:
        acts = (
            self.train,
            self.train,
            self.train,
            self.streamer.cut,
            self.streamer.cut,
            self.checkpoint,
            self.snapshot_cut,
        )
        for _ in range(events):
            acts[int(self.rng.integers(len(acts)))]()
        self.check()

    def train(self) -> None:
        self.source.train({name: self.rng.choice(IDS, self.rng.integers(0, 9)).tolist() for name in ("users", "items")})

    def checkpoint(self) -> None:
        self.saved = self.source.step

    def snapshot_cut(self) -> None:
        if self.rng.random() < 0.3:
            self.streamer.snapshot_cut()

    def fork(self) -> None:
        """What was not published of a cut, half of one perhaps, is lost with the process."""
        self.train()
        whole = len(self.transport.frames)
        self.streamer.cut()
        del self.transport.frames[int(self.rng.integers(whole, len(self.transport.frames))) :]
        before, step = self.source, self.saved
        tail = find_tail(self.parts())
        common = 0 if tail is None else min(step, tail.commit.step)
        ids = published_since(self.parts(), common)
        self.source = MemorySource(generation=before.generation + 1, seed=self.seed + before.generation, step=step)
        self.source.history[step], self.source.dense_history[step] = before.history[step], before.dense_history[step]
        position = START if tail is None else tail.commit.position
        self._begin(position, 0 if tail is None else tail.commit.step)
        commit = self.streamer.rewind({name: self._with_held(name, ids, common) for name in ("users", "items")})
        assert (commit.rewind, commit.step, commit.previous) == (True, step, position)
        self.check()
        assert self.near.step == step

    def _with_held(self, name: str, ids: dict[str, Int64s], common: int) -> Int64s:
        later = [row_id for row_id, (_, version) in self.source.state[name].items() if version & MAX_STEP > common]
        return np.union1d(ids.get(name, np.empty(0, np.int64)), np.array(later, dtype=np.int64))

    def parts(self) -> list[list[bytes]]:
        """What is retained, as a transport's segments, the newest first; each begins with a header."""
        frames, start = self.transport.frames, self.transport.retained
        bounds = [start, *np.sort(self.rng.integers(start, len(frames) + 1, 3)).tolist(), len(frames)]
        pieces = [
            [self.header_at[max(k for k in self.header_at if k <= low)], *frames[low:high]]
            for low, high in pairwise(bounds)
        ]
        return [piece for piece in reversed(pieces) if len(piece) > 1]

    def check(self) -> None:
        for data in self.transport.frames[self.fed :]:
            self.near.feed(data)
        self.fed = len(self.transport.frames)
        late = DictReplica()
        for _ in range(2):
            late.read_again()
            for data in self.transport.held:
                late.feed(data)
        for replica in (self.near, late):
            if replica.position != START:
                assert replica.position == self.streamer.committed
                assert replica.tables == self.source.history[replica.step]
                if self.seed % 2:
                    assert bits(replica.dense) == bits(self.source.dense_history[replica.step])


def bits(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, bytes]:
    return {name: values.tobytes() for name, values in arrays.items()}


def fork_and_check(seed: int, forks: int = 4, events: int = 14) -> None:
    life = ForkedLife(seed)
    for _ in range(forks):
        life.live(events)
        life.fork()
    life.live(events)
    life.train()
    life.streamer.finish()
    life.check()
    assert life.near.step == life.source.step
