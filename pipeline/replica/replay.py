"""The cuts that lead to a retained one, read anew from the stream: a snapshot cut, or nothing, and every ordinary cut behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pipeline.replica.counters import ReplicaCounters
from pipeline.replica.cuts import Applied, Cut, ShardPlace
from pipeline.replica.errors import RetainedGone
from pipeline.replica.intake import Intake, ReadyCut
from pipeline.replica.joined import join_cut
from pipeline.replica.joining import Join, OnHeader
from pipeline.replica.retained import RetainedCut, SeenStream
from pipeline.replica.staging import Stage
from pipeline.wire.errors import StreamTrimmed
from pipeline.wire.frames import START, CutPosition, FrameLimits
from pipeline.wire.transport import Transport

PATIENCE_S = 10.0
"""What leads to a retained cut was seen: a transport that brings nothing for so long has lost it."""
Wanted = Callable[[str], bool]
EVERYTHING_GONE = Cut(Applied(), snapshot=True, dense={})
"""The trainer before its first cut."""


class Replay:
    """Reads; applies nothing. ``wanted`` and ``on_header`` as an intake takes them."""

    def __init__(
        self,
        transports: Sequence[Transport],
        seen: SeenStream,
        on_header: OnHeader,
        wanted: Wanted,
        limits: FrameLimits,
        stage: Stage,
    ) -> None:
        self._transports, self._seen, self._on_header = transports, seen, on_header
        self._wanted, self._limits, self._stage = wanted, limits, stage

    def cuts(self, target: RetainedCut) -> Iterator[Cut]:
        """In order; each is valid until the next is asked for. Raises RetainedGone, Refused, and what the transports raise."""
        if target.base == START:
            begin = Applied()
            yield EVERYTHING_GONE
        else:
            joined = join_cut([self._read_snapshot(number, target.base) for number in range(len(self._transports))])
            try:
                cut = joined.cut(self._places_behind(target.base, joined.shares))
                yield cut
            finally:
                joined.close()
            begin = cut.applied
        if begin.position < target.position:
            yield from self._follow(begin, target)

    def _follow(self, begin: Applied, target: RetainedCut) -> Iterator[Cut]:
        join = Join(self._transports, self._make_intake, self._on_header, ReplicaCounters(), self._stage.nbytes, begin)
        position = begin.position
        try:
            while position < target.position:
                if not join.receive(PATIENCE_S):
                    raise RetainedGone(target.position)
                while position < target.position and (joined := join.next_cut(position)) is not None:
                    try:
                        yield joined.cut(join.places_behind(joined))
                    finally:
                        joined.close()
                    position = joined.commit.position
        finally:
            join.close()

    def _read_snapshot(self, number: int, position: CutPosition) -> ReadyCut:
        """The share of one shard in a snapshot cut."""
        intake, place = self._make_intake(self._on_header), self._seen.before_snapshot(position)[number]
        if place is not None:
            intake.begin_from(place.header_bytes)
            intake.restart(place)
        intake.waiting = True
        subscription = self._transports[number].subscribe(None if place is None else place.at)
        try:
            while (frames := subscription.next(PATIENCE_S)) is not None:
                for at, payload in frames:
                    ready = intake.take(at, f"{at} of shard {number}", payload, START)
                    if ready is not None and ready.commit.position == position:
                        return ready
                    if ready is not None:
                        ready.staged.close()
        except StreamTrimmed as error:
            raise RetainedGone(position) from error
        finally:
            subscription.close()
            intake.close()
        raise RetainedGone(position)

    def _places_behind(self, position: CutPosition, shares: Sequence[ReadyCut]) -> tuple[ShardPlace, ...]:
        return tuple(
            ShardPlace(share.place.header.epoch, None, share.place.header_bytes) if place is None else place.kept
            for place, share in zip(self._seen.behind(position), shares, strict=True)
        )

    def _make_intake(self, on_header: OnHeader) -> Intake:
        return Intake(ReplicaCounters(), on_header, self._wanted, self._limits, self._stage)
