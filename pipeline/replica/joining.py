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

from collections.abc import Callable, Sequence
from dataclasses import replace

from pipeline.replica.counters import ReplicaCounters
from pipeline.replica.cuts import Applied, ShardPlace
from pipeline.replica.errors import OtherRun, OtherShard, OtherShards
from pipeline.replica.intake import Intake
from pipeline.replica.joined import JoinedCut, join_cut
from pipeline.replica.order import Verdict, judge
from pipeline.replica.shard import ShardReader
from pipeline.wire.frames import START, CutPosition, HeaderFrame
from pipeline.wire.transport import Transport

OnHeader = Callable[[str, HeaderFrame], None]
MakeIntake = Callable[[OnHeader], Intake]


class Join:
    """Not thread-safe, but for ``end_waiting``."""

    def __init__(
        self,
        transports: Sequence[Transport],
        make_intake: MakeIntake,
        on_header: OnHeader,
        counters: ReplicaCounters,
        stage_bytes: int,
        begin: Applied,
    ) -> None:
        """``on_header(where, header)`` is called for each new header of each shard; it may refuse it. ``stage_bytes``: of all shards
        together. ``begin``: behind which cut, and where.
        """
        self._on_header, self._counters = on_header, counters
        self._num_shards, self._run_id = len(transports), ""
        self._waiting = False
        self._loaded: CutPosition | None = None
        budget = stage_bytes // self._num_shards
        if begin.places and len(begin.places) != self._num_shards:
            raise OtherShards(len(begin.places), self._num_shards)
        self._shards = [
            ShardReader(
                transport,
                make_intake(self._check_header(number)),
                counters,
                budget,
                f" of shard {number}" if self._num_shards > 1 else "",
                begin.places[number] if begin.places else None,
                begin.position,
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
        joined = self._match(applied)
        while joined is None and (shard := self._next_shard()) is not None:
            if shard.take_frame():
                joined = self._match(applied)
        return joined

    def places_behind(self, cut: JoinedCut) -> tuple[ShardPlace, ...]:
        """Where each shard goes on when ``cut``, which ``next_cut`` just gave out, is applied."""
        if not cut.commit.snapshot:
            return tuple(share.place.kept for share in cut.shares)
        # Frames of later cuts may have come before it. Where a shard waited, it passed over them, and knows behind which.
        passed = [shard.intake.place_behind(cut.commit.position) if self._waiting else None for shard in self._shards]
        return tuple(
            replace(share.place.kept, at=None) if place is None else place.kept
            for share, place in zip(cut.shares, passed, strict=True)
        )

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
        if self._num_shards == 1:
            return self._shards[0] if self._shards[0].has_frames else None
        ready = [shard for shard in self._shards if shard.has_frames and not self._is_ahead(shard)]
        return min(ready, key=lambda shard: shard.reached, default=None)

    def _is_ahead(self, shard: ShardReader) -> bool:
        if not self._waiting:
            return shard.snapshot is not None or (bool(shard.cuts) and (shard.is_full or shard.intake.waiting))
        return shard.snapshot is not None and any(
            other.snapshot is None and (other.has_frames or not other.idle) for other in self._shards
        )

    def _match(self, applied: CutPosition) -> JoinedCut | None:
        if all(shard.snapshot is not None for shard in self._shards):
            joined = self._join_snapshots()
            if joined is not None:
                return joined
        self._drop_passed()
        while all(shard.cuts for shard in self._shards):
            position = max(shard.cuts[0].commit.position for shard in self._shards)
            if dropped := sum(shard.drop_cuts(position) for shard in self._shards):
                self._counters.abandoned += dropped
                continue
            joined = join_cut([shard.pop_cut() for shard in self._shards])
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
        return join_cut([shard.pop_snapshot() for shard in self._shards])

    def _drop_passed(self) -> None:
        """A snapshot cut may stand alone, with no ordinary cut of its position: rule 1 between those and ordinary cuts."""
        if self._waiting:
            return
        furthest = max((shard.cuts[-1].commit.position for shard in self._shards if shard.cuts), default=START)
        for shard in self._shards:
            if shard.snapshot is None:
                continue
            alone = shard.snapshot.commit.position
            if alone < furthest:
                shard.pop_snapshot().staged.close()
                self._counters.abandoned += 1
            elif not shard.cuts:
                self._counters.abandoned += sum(other.drop_cuts(alone) for other in self._shards)

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
