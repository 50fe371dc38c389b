"""The shards of a stream, joined: a cut comes out when it is whole on all of them.

Rules.

1. The cut of a position exists when every shard has committed it. Each shard's commits come in rising order, so one that another
   shard has passed over (it has a later one) does not exist there and never will: it is dropped everywhere. Its rows come again.
2. A shard that is ahead waits: at ``MAX_AHEAD`` cuts, or its share of the memory, no more is read of it. The shard that is furthest
   behind is read first, and waited on.
3. When cuts are missing on one shard, all wait for a snapshot cut, and for the same one: of two, the earlier is dropped. A shard that
   holds one is not read on while another one that does not still has frames.
4. Behind a snapshot cut each shard goes on at its own place.

A stream of one shard takes the same way; its cuts wait for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from pipeline.replica.counters import ReplicaCounters
from pipeline.replica.errors import DamagedCut, OtherRun, OtherShard
from pipeline.replica.intake import Intake, ReadyCut
from pipeline.replica.order import Verdict, judge
from pipeline.replica.shard import ShardReader
from pipeline.replica.staging import StagedRows
from pipeline.wire.digest import MASK
from pipeline.wire.frames import CommitFrame, CutPosition, HeaderFrame
from pipeline.wire.transport import Position, Transport

OnHeader = Callable[[str, HeaderFrame], None]
MakeIntake = Callable[[OnHeader], Intake]


@dataclass(frozen=True, slots=True)
class JoinedCut:
    """The shares of all shards in one cut. Whoever applies it closes it."""

    commit: CommitFrame
    """Counts and digest are those of all shards together."""
    shares: Sequence[ReadyCut]

    @property
    def places(self) -> tuple[Position, ...]:
        """Behind the commit frame, on each shard."""
        return tuple(share.at for share in self.shares)

    def is_short(self, most_ids: int) -> bool:
        """As ``StagedCut.is_short``."""
        few = self.commit.num_rows + self.commit.num_tombstones <= most_ids
        return few and all(share.staged.is_short(most_ids) for share in self.shares)

    def parts(self) -> Iterator[StagedRows]:
        """All rows, shard by shard. No row comes twice: each belongs to one shard."""
        for share in self.shares:
            yield from share.staged.parts()

    def dense(self) -> Mapping[str, npt.NDArray[Any]] | None:
        """The dense weights, from the shard that carries them; None where none does."""
        found = (share.staged.dense() for share in self.shares)
        return next((arrays for arrays in found if arrays is not None), None)

    def close(self) -> None:
        for share in self.shares:
            share.staged.close()


class Join:
    """Not thread-safe, but for ``end_waiting``."""

    def __init__(
        self,
        transports: Sequence[Transport],
        make_intake: MakeIntake,
        on_header: OnHeader,
        counters: ReplicaCounters,
        staging_bytes: int,
    ) -> None:
        """``on_header(where, header)`` is called for each new header of each shard; it may refuse it. ``staging_bytes``: of all shards
        together.
        """
        self._on_header, self._counters = on_header, counters
        self._num_shards, self._run_id = len(transports), ""
        self._waiting = False
        self._loaded: CutPosition | None = None
        budget = staging_bytes // self._num_shards
        self._shards = [
            ShardReader(
                transport,
                make_intake(self._check_header(number)),
                counters,
                budget,
                f" of shard {number}" if self._num_shards > 1 else "",
            )
            for number, transport in enumerate(transports)
        ]

    @property
    def waiting(self) -> bool:
        """Cuts are missing: only a snapshot cut can be applied."""
        return any(shard.intake.waiting for shard in self._shards)

    @property
    def newest(self) -> tuple[CutPosition, int]:
        """The furthest cut of which a frame was seen on any shard, and its step."""
        return max((shard.intake.newest, shard.intake.newest_step) for shard in self._shards)

    def receive(self, timeout_s: float) -> bool:
        """Wait up to ``timeout_s`` for frames that ``next_cut`` can take. Raises as ``Subscription.next``."""
        self._go_behind_loaded()
        if self._next_shard() is not None:
            return True
        hungry = [shard for shard in self._shards if not shard.has_frames and not self._is_ahead(shard)]
        if len(hungry) > 1 and sum(shard.receive(0) for shard in hungry):  # each is asked
            return True
        last = min(hungry, key=lambda shard: shard.reached)
        return (timeout_s > 0 or len(hungry) == 1) and last.receive(timeout_s)

    def next_cut(self, applied: CutPosition) -> JoinedCut | None:
        """The next cut behind ``applied`` that is whole on all shards; None when the frames in hand make none. Raises Refused."""
        self._go_behind_loaded()
        while True:
            joined = self._match(applied)
            if joined is not None:
                return joined
            shard = self._next_shard()
            if shard is None:
                return None
            shard.take_frame()

    def check_end(self) -> None:
        """As ``Subscription.check_end``."""
        for shard in self._shards:
            shard.check_end()

    def end_waiting(self) -> None:
        """Wake ``receive`` in another thread: it raises TransportClosed."""
        for shard in self._shards:
            shard.end_waiting()

    def close(self) -> None:
        """Let everything that waits go. May be called twice."""
        for shard in self._shards:
            shard.close()

    def _next_shard(self) -> ShardReader | None:
        """Rule 2."""
        ready = [shard for shard in self._shards if shard.has_frames and not self._is_ahead(shard)]
        return min(ready, key=lambda shard: shard.reached, default=None)

    def _is_ahead(self, shard: ShardReader) -> bool:
        if not self._waiting:
            return bool(shard.cuts) and (shard.is_full or shard.intake.waiting)
        return shard.snapshot is not None and any(
            other.snapshot is None and (other.has_frames or not other.idle) for other in self._shards
        )

    def _match(self, applied: CutPosition) -> JoinedCut | None:
        if all(shard.snapshot is not None for shard in self._shards):
            joined = self._join_snapshots()
            if joined is not None:
                return joined
        while all(shard.cuts for shard in self._shards):
            position = max(shard.cuts[0].commit.position for shard in self._shards)
            if dropped := sum(shard.drop_cuts(position) for shard in self._shards):
                self._counters.abandoned += dropped
                continue
            joined = self._joined([shard.pop_cut() for shard in self._shards])
            verdict = judge(applied, joined.commit)
            if verdict is Verdict.APPLY:
                return joined
            joined.close()
            if verdict is Verdict.LACKS:
                self._wait_for_snapshot(applied)
        if not self._waiting and any(shard.intake.waiting and not shard.cuts for shard in self._shards):
            self._wait_for_snapshot(applied)
        return None

    def _join_snapshots(self) -> JoinedCut | None:
        """Rule 3."""
        ready = [shard.snapshot.commit.position for shard in self._shards if shard.snapshot is not None]
        position = max(ready)
        if min(ready) < position:
            for shard, found in zip(self._shards, ready, strict=True):
                if found < position:
                    shard.pop_snapshot().staged.close()
            return None
        self._loaded = position
        return self._joined([shard.pop_snapshot() for shard in self._shards])

    def _joined(self, shares: Sequence[ReadyCut]) -> JoinedCut:
        """Raises DamagedCut where the shards do not mean the same cut."""
        first = shares[0].commit
        for number, share in enumerate(shares):
            if _meaning(share.commit) != _meaning(first):
                what = f"its commit frame says {_meaning(share.commit)}, that of shard 0 {_meaning(first)}"
                for other in shares:
                    other.staged.close()
                raise DamagedCut(f"{share.at} of shard {number}", first.position, first.snapshot, what)
        if len(shares) == 1:
            return JoinedCut(first, shares)
        commits = [share.commit for share in shares]
        commit = replace(
            first,
            num_frames=sum(commit.num_frames for commit in commits),
            num_rows=sum(commit.num_rows for commit in commits),
            num_tombstones=sum(commit.num_tombstones for commit in commits),
            digest=sum(commit.digest for commit in commits) & MASK,
            dense_digest=next((c.dense_digest for c in commits if c.dense_digest is not None), None),
        )
        return JoinedCut(commit, shares)

    def _wait_for_snapshot(self, applied: CutPosition) -> None:
        """Rule 3."""
        self._waiting = True
        for shard in self._shards:
            shard.wait_for_snapshot(applied)

    def _go_behind_loaded(self) -> None:
        """Rule 4, when the snapshot cut that was given out is applied."""
        position, self._loaded = self._loaded, None
        if position is None:
            return
        waited, self._waiting = self._waiting, False
        for shard in self._shards:
            if waited:
                shard.go_behind(position)
            else:
                shard.drop_cuts(CutPosition(position.generation, position.cut + 1))
                shard.taken = max(shard.taken, position)

    def _check_header(self, number: int) -> OnHeader:
        def check(where: str, header: HeaderFrame) -> None:
            if (header.shard, header.num_shards) != (number, self._num_shards):
                raise OtherShard(where, (header.shard, header.num_shards), (number, self._num_shards))
            if self._run_id not in ("", header.run_id):
                raise OtherRun(where, f"run {header.run_id}", f"run {self._run_id}")
            self._on_header(where, header)
            self._run_id = header.run_id

        return check


def _meaning(commit: CommitFrame) -> tuple[Any, ...]:
    """What the commit frames of all shards say alike."""
    return (commit.position, commit.step, commit.kind, commit.previous, commit.rewind, commit.end)
