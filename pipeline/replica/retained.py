"""What a stream still holds: the cuts that a replica can be taken to, and how each is reached.

Rules.

1. A cut is reached from the newest whole snapshot cut at or below it, or from the stream's beginning, over every ordinary cut between.
2. Of a stream in shards a cut counts when it is whole on all of them.
3. Frames of an older generation behind the header of a newer one do not count: their trainer was replaced.

Looking reads the whole stream once; of frames only what names them is kept. Frames that come meanwhile may be seen or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.replica.errors import NotRetained
from pipeline.replica.intake import Place
from pipeline.wire.frames import START, CommitFrame, CutPosition, FrameLimits, HeaderFrame
from pipeline.wire.reading import FrameReader
from pipeline.wire.transport import Position, Transport

Name = tuple[bool, CutPosition]
"""(whether it is a snapshot cut, its position)."""


@dataclass(frozen=True, slots=True)
class RetainedCut:
    """A cut that ``Replica.rollback`` can go to."""

    position: CutPosition
    step: int
    clock_ns: int
    """Wall clock at which the trainer took it."""
    base: CutPosition
    """The snapshot cut from which it is reached; (0, 0): the stream's beginning."""


@dataclass(frozen=True, slots=True)
class SeenCut:
    """One committed cut on one shard."""

    commit: CommitFrame
    begin: Place | None
    """Before its first frame; None: the stream begins with it."""
    behind: Place


@dataclass(slots=True)
class SeenShard:
    """Whole cuts by name, in the order of their commit frames."""

    cuts: dict[Name, SeenCut] = field(default_factory=dict)
    header: HeaderFrame | None = None
    """The last one, and as it came."""
    header_bytes: bytes = b""


def look_at(transport: Transport, limits: FrameLimits) -> SeenShard:
    """Read a shard from its oldest frame to its end. Raises FrameError and what the transport raises."""
    seen, looker = SeenShard(), _Looker(limits)
    subscription = transport.subscribe(None)
    try:
        while (frames := subscription.next(0)) is not None:
            for at, payload in frames:
                looker.take(seen, at, payload)
    finally:
        subscription.close()
    seen.header, seen.header_bytes = looker.reader.header, looker.header_bytes
    return seen


class _Looker:
    """Where in one shard it is."""

    def __init__(self, limits: FrameLimits) -> None:
        self.reader = FrameReader(limits)
        self.header_bytes = b""
        self._last: Place | None = None
        self._open: dict[bool, tuple[CutPosition, int, Place | None]] = {}
        """Of each kind the cut in the making: its frames so far (-1: some are missing), and where it began."""

    def take(self, seen: SeenShard, at: Position, payload: bytes) -> None:
        frame, header = self.reader.read(payload), self.reader.header
        if isinstance(frame, HeaderFrame):
            if frame is header:
                self.header_bytes = payload
        elif header is not None and frame.generation == header.generation:
            if isinstance(frame, CommitFrame):
                self._end(seen, frame, Place(at, header, self.header_bytes))
            else:
                position, count, begin = self._open.get(frame.snapshot, (START, 0, None))
                if position != frame.position:
                    position, count, begin = frame.position, 0, self._last
                if frame.number >= count >= 0:
                    count = count + 1 if frame.number == count else -1
                self._open[frame.snapshot] = position, count, begin
        if header is not None:
            self._last = Place(at, header, self.header_bytes)

    def _end(self, seen: SeenShard, commit: CommitFrame, behind: Place) -> None:
        position, count, begin = self._open.pop(commit.snapshot, (commit.position, 0, self._last))
        if position != commit.position:
            count, begin = 0, self._last
        if count == commit.num_frames:
            seen.cuts.setdefault((commit.snapshot, commit.position), SeenCut(commit, begin, behind))


class SeenStream:
    """All shards of a stream, as they were when they were looked at."""

    def __init__(self, shards: Sequence[SeenShard]) -> None:
        self.shards = shards
        self.headers = [shard.header for shard in shards]

    @classmethod
    def of(cls, transports: Sequence[Transport], limits: FrameLimits) -> SeenStream:
        return cls([look_at(transport, limits) for transport in transports])

    def cuts(self, *, snapshots: bool) -> Mapping[CutPosition, CommitFrame]:
        """Rule 2: of one kind, positions rising."""
        first, *others = self.shards
        found = {
            position: seen.commit
            for (kind, position), seen in first.cuts.items()
            if kind is snapshots and all((kind, position) in other.cuts for other in others)
        }
        return dict(sorted(found.items()))

    def retained(self) -> Iterator[RetainedCut]:
        """Rule 1, in the order of the stream."""
        ordinary, snapshots = self.cuts(snapshots=False), self.cuts(snapshots=True)
        base: CutPosition | None = None
        last = START
        for position in sorted({*ordinary, *snapshots}):
            commit = ordinary.get(position) or snapshots[position]
            if position in snapshots:
                base = position
            elif commit.previous == START:
                base = START if base is None and last == START else base
            elif base is None or commit.previous > last:
                base, last = None, position
                continue
            last = position
            if base is not None:
                yield RetainedCut(position, commit.step, commit.clock_ns, base)

    def behind(self, position: CutPosition) -> list[Place | None]:
        """On each shard, behind the ordinary cut; None where that is gone."""
        found = [shard.cuts.get((False, position)) for shard in self.shards]
        return [None if seen is None else seen.behind for seen in found]

    def before_snapshot(self, position: CutPosition) -> list[Place | None]:
        """On each shard, before the first frame of the snapshot cut."""
        return [shard.cuts[True, position].begin for shard in self.shards]


def choose_cut(retained: Sequence[RetainedCut], position: CutPosition | None, step: int | None) -> RetainedCut:
    """The cut at ``position``, or the newest of at most ``step``. Raises NotRetained, ValueError unless one of them is given."""
    if (position is None) == (step is None):
        raise ValueError("say the position of a cut, or a step")
    if position is not None:
        position = CutPosition(*position)
        wanted = f"cut {position.cut} of generation {position.generation}"
        found = [cut for cut in retained if cut.position == position]
    else:
        wanted = f"a cut of at most step {step}"
        found = [cut for cut in retained if step is not None and cut.step <= step]
    if not found:
        raise NotRetained(wanted, [(cut.position, cut.step) for cut in retained])
    return found[-1]
