"""One shard of a stream on its way in: frames in hand, and whole cuts that wait for those of the other shards."""

from __future__ import annotations

from collections import deque

from pipeline.replica.counters import ReplicaCounters
from pipeline.replica.intake import Intake, Place, ReadyCut
from pipeline.wire.errors import StreamTrimmed
from pipeline.wire.frames import START, CutPosition
from pipeline.wire.transport import Position, Subscription, Transport

MAX_AHEAD = 64
"""Cuts that may wait for other shards."""


class ShardReader:
    """Not thread-safe, but for ``close``. ``budget_bytes``: what waiting cuts may take in memory, and the next one with them."""

    def __init__(
        self, transport: Transport, intake: Intake, counters: ReplicaCounters, budget_bytes: int, name: str
    ) -> None:
        """``name`` goes behind places in errors."""
        self.intake = intake
        self.cuts: deque[ReadyCut] = deque()
        """Ordinary ones that wait, positions rising."""
        self.snapshot: ReadyCut | None = None
        """The newest one that waits."""
        self.taken = START
        """The last ordinary cut that is applied, waits or was dropped: none at or below it comes again."""
        self.idle = False
        """Nothing had come when it was last looked."""
        self._transport, self._counters, self._budget_bytes, self._name = transport, counters, budget_bytes, name
        self._frames: deque[tuple[Position, bytes]] = deque()
        self._waiting_bytes = 0
        self._subscription: Subscription = transport.subscribe(None)

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
        return len(self.cuts) >= MAX_AHEAD or self._waiting_bytes >= self._budget_bytes

    def receive(self, timeout_s: float) -> bool:
        """Wait up to ``timeout_s`` for frames. True: there are some, or reading begins anew because retention overtook it."""
        try:
            frames = self._subscription.next(timeout_s)
        except StreamTrimmed:
            self.go_to(None)
            return True
        self.idle = frames is None
        self._frames.extend(frames or ())
        return not self.idle

    def take_frame(self) -> None:
        """Take the next frame in hand. Raises Refused."""
        at, payload = self._frames.popleft()
        self.intake.staging_bytes = max(self._budget_bytes - self._waiting_bytes, 0)
        ready = self.intake.take(at, f"{at}{self._name}", payload, self.taken)
        if ready is None:
            return
        if ready.commit.snapshot:
            self._drop_snapshot()
            self.snapshot = ready
        else:
            self.cuts.append(ready)
            self._waiting_bytes += ready.staged.nbytes
            self.taken = ready.commit.position

    def pop_cut(self) -> ReadyCut:
        """The first ordinary cut that waits; whoever gets it closes it."""
        ready = self.cuts.popleft()
        self._waiting_bytes -= ready.staged.nbytes
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
