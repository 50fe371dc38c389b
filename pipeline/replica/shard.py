"""One shard of a stream on its way in: frames in hand, and whole cuts that wait for those of the other shards."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from pipeline.replica.counters import ReplicaCounters
from pipeline.replica.cuts import ShardPlace
from pipeline.replica.intake import Intake, Place, ReadyCut
from pipeline.wire.errors import PositionBeyondEnd, StreamReplaced, StreamTrimmed
from pipeline.wire.frames import START, CutPosition
from pipeline.wire.transport import Position, Subscription, Transport

MAX_AHEAD = 64
"""Cuts that may wait for other shards."""


class ShardReader:
    """Not thread-safe, but for ``close``. ``budget_bytes``: what waiting cuts may take in memory, and the next one with them."""

    def __init__(
        self,
        transport: Transport,
        intake: Intake,
        counters: ReplicaCounters,
        budget_bytes: int,
        name: str,
        begin: ShardPlace | None = None,
        taken: CutPosition = START,
    ) -> None:
        """``name`` goes behind places in errors. ``begin``: where an earlier life had come, ``taken`` applied; None: from the oldest
        frame on. Raises Refused.
        """
        self.intake = intake
        self.cuts: deque[ReadyCut] = deque()
        """Ordinary ones that wait, positions rising."""
        self.snapshot: ReadyCut | None = None
        """The newest one that waits."""
        self.taken = taken
        """The last ordinary cut that is applied, waits or was dropped: none at or below it comes again."""
        self.idle = False
        """Nothing had come when it was last looked."""
        self._transport, self._counters, self._budget_bytes, self._name = transport, counters, budget_bytes, name
        self._frames: deque[tuple[Position, bytes]] = deque()
        self._waiting_bytes = 0
        self._proven = True
        """False while the place at which it began comes from an earlier life, and nothing was read there."""
        self._subscription: Subscription = transport.subscribe(self._begin_at(begin))

    @property
    def has_frames(self) -> bool:
        return bool(self._frames)

    @property
    def reached(self) -> CutPosition:
        """How far it has come: for choosing the one to read next."""
        return self.taken if self.snapshot is None else max(self.taken, self.snapshot.commit.position)

    @property
    def is_full(self) -> bool:
        """No more is taken until a cut that waits is out of the way."""
        if len(self.cuts) >= MAX_AHEAD or self._waiting_bytes >= self._budget_bytes:
            return True
        return bool(self.cuts) and self.cuts[-1].staged.num_ids is None  # it found no room in memory

    def receive(self, timeout_s: float) -> bool:
        """Wait up to ``timeout_s`` for frames. True: there are some, or reading begins anew: what it read is gone."""
        try:
            frames = self._subscription.next(timeout_s)
        except (StreamTrimmed, StreamReplaced):
            self.go_to(None)
            return True
        except PositionBeyondEnd:
            if self._proven:
                raise
            # The stream lost an end that was never acknowledged, and the earlier life had seen it.
            self.go_to(None)
            return True
        self._proven = self._proven or frames is not None
        self.idle = frames is None
        self._frames.extend(frames or ())
        return not self.idle

    def _begin_at(self, begin: ShardPlace | None) -> Position | None:
        """The kept place, if the stream still is the one in which it was one."""
        if begin is None:
            return None
        header = self.intake.begin_from(begin.header)
        if begin.at is None or self._transport.epoch != begin.epoch:
            self.intake.restart(None)
            return None
        self.intake.restart(Place(begin.at, header, begin.header))
        self._proven = False
        return begin.at

    def take_frame(self) -> bool:
        """Take the next frame in hand. Returns whether a cut is whole now, or cuts are missing. Raises Refused."""
        at, payload = self._frames.popleft()
        left = max(self._budget_bytes - self._waiting_bytes, 0)
        if left != self.intake.stage.nbytes:
            self.intake.stage = replace(self.intake.stage, nbytes=left)
        ready = self.intake.take(at, f"{at}{self._name}", payload, self.taken)
        if ready is None:
            return self.intake.waiting
        if ready.commit.snapshot:
            self._drop_snapshot()
            self.snapshot = ready
        else:
            self.cuts.append(ready)
            self._waiting_bytes += _held_bytes(ready)
            self.taken = ready.commit.position
        return True

    def pop_cut(self) -> ReadyCut:
        """The first ordinary cut that waits; whoever gets it closes it."""
        ready = self.cuts.popleft()
        self._waiting_bytes -= _held_bytes(ready)
        return ready

    def pop_snapshot(self) -> ReadyCut:
        ready, self.snapshot = self.snapshot, None
        assert ready is not None
        return ready

    def drop_cuts(self, before: CutPosition) -> int:
        """Let ordinary cuts before ``before`` go; returns how many."""
        count = 0
        while self.cuts and self.cuts[0].commit.position < before:
            self.pop_cut().staged.close()
            count += 1
        return count

    def wait_for_snapshot(self, applied: CutPosition) -> None:
        """Cuts are missing on some shard. A snapshot cut that this one has passed already is read again."""
        if not self.intake.waiting and self.taken > applied:
            self.go_to(None)
        self._drop_waiting()
        self.taken, self.intake.waiting = applied, True

    def go_behind(self, position: CutPosition) -> None:
        """A snapshot cut was loaded: read on behind the ordinary cut whose position it shares, or from the oldest frame."""
        place = self.intake.place_behind(position)
        self._drop_waiting()
        self._drop_snapshot()
        self.go_to(place)
        self.taken = position

    def go_to(self, place: Place | None) -> None:
        """Read from there; None: from the oldest frame."""
        self._subscription.close()
        self._frames.clear()
        self._subscription = self._transport.subscribe(None if place is None else place.at)
        self.intake.restart(place)
        self._proven = True
        self._counters.rescans += 1

    def check_end(self) -> None:
        self._subscription.check_end()

    def end_waiting(self) -> None:
        """Wake ``receive`` in another thread."""
        self._subscription.close()

    def close(self) -> None:
        self.end_waiting()
        self._drop_waiting()
        self._drop_snapshot()
        self.intake.close()

    def _drop_waiting(self) -> None:
        while self.cuts:
            self.pop_cut().staged.close()

    def _drop_snapshot(self) -> None:
        if self.snapshot is not None:
            self.pop_snapshot().staged.close()


def _held_bytes(ready: ReadyCut) -> int:
    """Of its rows that are in memory, and its dense weights."""
    dense = ready.staged.dense() or {}
    return ready.staged.nbytes + sum(array.nbytes for array in dense.values())
