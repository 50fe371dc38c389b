"""A trainer of plain dicts whose stream has several shards, and transports that deliver late."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pipeline.rows.sharding import split_by_shard
from pipeline.wire import HeaderFrame, decode_frame
from pipeline.wire.encoding import encode_frame
from pipeline.wire.frames import CommitFrame, CutPosition
from pipeline.wire.transport import Position
from tests.replica.trainer import DictTrainer, MemorySubscription, MemoryTransport

Shares = list[list[bytes]]
"""The frames of one cut, of each shard."""


class LateTransport(MemoryTransport):
    """Frames are published at once, and seen when ``deliver`` says so."""

    def __init__(self, batch: int = 2) -> None:
        super().__init__(batch)
        self.seen = 0

    def deliver(self, count: int) -> None:
        with self.grown:
            self.seen = min(self.seen + count, len(self.frames))
            self.grown.notify_all()

    def deliver_all(self) -> None:
        self.deliver(len(self.frames))

    def trim(self, first: int) -> None:
        """What is forgotten was delivered before."""
        super().trim(first)
        self.seen = max(self.seen, first)

    def subscribe(self, position: Position | None) -> MemorySubscription:
        return LateSubscription(self, position)


class LateSubscription(MemorySubscription):
    def next(self, timeout: float | None) -> list[tuple[Position, bytes]] | None:
        transport = self._transport
        assert isinstance(transport, LateTransport)
        with transport.grown:
            hidden = transport.frames[transport.seen :]
            del transport.frames[transport.seen :]
            try:
                return super().next(0 if timeout else timeout)
            finally:
                transport.frames += hidden


class ShardedTrainer(DictTrainer):
    """``cut_shares`` and ``snapshot_shares`` give the frames of each shard."""

    def __init__(self, dims: Mapping[str, int], num_shards: int, *, seed: int = 0) -> None:
        super().__init__(dims, seed=seed)
        self.num_shards = num_shards

    def headers(self) -> list[bytes]:
        header = decode_frame(self.header())
        assert isinstance(header, HeaderFrame)
        shards = range(self.num_shards)
        return [encode_frame(replace(header, shard=shard, num_shards=self.num_shards)) for shard in shards]

    def cut_shares(
        self,
        *,
        chunk: int = 4,
        end: bool = False,
        rewind: bool = False,
        outcome: Literal["acknowledged", "unheard", "failed"] = "acknowledged",
    ) -> Shares:
        """The frames of a cut of what changed. ``unheard``: all shards commit, and the trainer does not learn it. ``failed``: the caller
        leaves the end of some share out. In both cases the rows come again.
        """
        changed, ended, previous = self.changed, self.ended, self.previous
        commit: CommitFrame = decode_frame(self.cut(end=end, rewind=rewind)[-1])  # type: ignore[assignment]
        self.previous = previous
        shares = self._shares(commit.position, changed, chunk, rewind=rewind, end=end, ended=ended)
        self.previous = commit.position
        if outcome != "acknowledged":
            self.changed, self.ended, self.previous = changed, ended, previous
        if outcome == "failed":
            for states in (self.states, self.dense_states, self.steps):
                del states[commit.position]
        return shares

    def snapshot_shares(self, chunk: int = 4) -> Shares:
        """The frames of a snapshot cut at the last cut's position; nothing may have changed since."""
        assert not any(self.changed.values())
        everything = {name: set(rows) for name, rows in self.model.items()}
        return self._shares(self.previous, everything, chunk, snapshot=True)

    def _shares(
        self,
        position: CutPosition,
        changed: Mapping[str, set[int]],
        chunk: int,
        *,
        snapshot: bool = False,
        rewind: bool = False,
        end: bool = False,
        ended: Sequence[tuple[int, int]] = (),
    ) -> Shares:
        dense, kept, self.ended = self.dense, self.ended, list(ended)
        shares: Shares = []
        for shard in range(self.num_shards):
            own = {
                name: set(split_by_shard(name, sorted(ids), self.num_shards)[shard].tolist())
                for name, ids in changed.items()
            }
            frames = self._frames(position, own, chunk, snapshot=snapshot)
            shares.append([*frames[:-1], self._encode(replace(self.last_commit, rewind=rewind, end=end))])
            self.dense = None  # rides in shard 0
        self.dense, self.ended = dense, kept
        return shares

    def zombie(self) -> ShardedTrainer:
        """The process as it is now, which does not know that another goes on in its place."""
        return copy.deepcopy(self)
