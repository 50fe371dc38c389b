"""A replica of a stream in shards, in plain dictionaries: a cut is applied when the last shard has committed it."""

from __future__ import annotations

import struct

import xxhash

from pipeline.wire import START, CommitFrame, CutPosition, HeaderFrame, RowsFrame, decode_frame
from pipeline.wire.shares import join_commits
from tests.stream.dict_replica import DictReplica, Piece

Share = tuple[CommitFrame, list[Piece]]


class JoinedDictReplica(DictReplica):
    def __init__(self, num_shards: int) -> None:
        super().__init__()
        self.num_shards = num_shards
        self._pieces: list[dict[tuple[CutPosition, bool], list[Piece]]] = [{} for _ in range(num_shards)]
        self._shares: dict[tuple[CutPosition, bool], dict[int, Share]] = {}
        self._generations = [0] * num_shards

    def read_again(self) -> None:
        self._pieces, self._shares = [{} for _ in self._pieces], {}
        self._generations = [0] * self.num_shards

    def feed_shard(self, shard: int, data: bytes) -> bool:
        """Take one frame of a shard. True when it made the replica move."""
        frame = decode_frame(data)
        self._generations[shard] = max(self._generations[shard], frame.generation)
        if frame.generation < self._generations[shard]:
            return False
        if isinstance(frame, HeaderFrame):
            assert (frame.shard, frame.num_shards) == (shard, self.num_shards)
            return self.feed(data)
        name = frame.position, frame.snapshot
        if not isinstance(frame, CommitFrame):
            self._check_shard(shard, frame)
            self._pieces[shard].setdefault(name, []).append(frame)
            return False
        pieces = self._pieces[shard].pop(name, [])
        if [piece.number for piece in pieces] != list(range(frame.num_frames)):
            assert self.position == START, "frames of the share are missing"
            return False
        shares = self._shares.setdefault(name, {})
        shares[shard] = frame, pieces
        return len(shares) == self.num_shards and self._take(name)

    def _take(self, name: tuple[CutPosition, bool]) -> bool:
        position, snapshot = name
        shares = self._shares.pop(name)
        commits = [shares[shard][0] for shard in range(self.num_shards)]
        assert len({(c.step, c.previous, c.rewind, c.end, c.ended_k2.tobytes()) for c in commits}) == 1
        if position <= self.position:
            return False
        if not snapshot and commits[0].previous > self.position:
            self.gaps += 1
            return False
        self._apply(join_commits(commits), [piece for shard in range(self.num_shards) for piece in shares[shard][1]])
        self._shares = {name: found for name, found in self._shares.items() if name[0] > position}
        return True

    def _check_shard(self, shard: int, frame: Piece) -> None:
        """Each row is where the formula says, by a library; dense weights ride in shard 0."""
        if not isinstance(frame, RowsFrame):
            assert shard == 0
            return
        for part in frame.rows:
            key = xxhash.xxh64_intdigest(part.table.encode())
            for row_id in (*part.ids_n.tolist(), *part.tombstones_m.tolist()):
                assert xxhash.xxh64_intdigest(struct.pack("<q", row_id), seed=key) % self.num_shards == shard
