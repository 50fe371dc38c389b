"""Which segments hold what nobody needs, and which of them compaction takes next. Pure: looks at counts alone.

Rules.

1. A record is live (the newest of its id), dead (it forgets its id), or stale (an older one of either).
2. A dead record is needed while a stale one may be of its id: an index made from footers would find that id again. Stale
   records of an id lie in segments that were there when it was forgotten, so the dead one knows below which number.
3. What compaction takes has something to drop, and what it moves is live or needed: each move leaves fewer records.
4. Whether a checkpoint names a segment makes no difference here: what is left of it moves on, and the file stays until the
   checkpoint goes. Else a row that never changes would hold its segment, garbage and all, in every checkpoint to come.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from pipeline.rowlog.log.segment import Segment

NOWHERE: Final = 1 << 62


def is_forgetting(segment: Segment, segments: Collection[Segment]) -> bool:
    """Whether dead records of ``segment`` are still needed."""
    return segment.dead > 0 and any(
        one.stale and one.number < segment.forgets_below and one is not segment for one in segments
    )


def pick(segments: Collection[Segment], below: int = NOWHERE) -> Segment | None:
    """The segment that compaction should take: as a rule the emptiest; None if none with a number below ``below`` has anything
    to drop.
    """
    stale = sorted(one.number for one in segments if one.stale)[:2]

    def drops(one: Segment) -> int:
        first = next((number for number in stale if number != one.number), NOWHERE)
        return one.stale + (one.dead if first >= one.forgets_below else 0)

    # What is neither live nor dead goes without being moved.
    free = [one for one in segments if one.sealed and one.number < below and one.live + one.dead and drops(one)]
    if not free:
        return None
    best = max(free, key=lambda one: drops(one) / one.num_rows)
    aged = [one for one in free if one.stale]
    mostly_dead = sum(one.dead for one in segments) > sum(one.stale for one in segments)
    if mostly_dead and 2 * drops(best) < best.num_rows and aged:
        # Dead records go only when older stale ones have gone, so those are next, however few they are.
        return min(aged, key=lambda one: one.number)
    return best


def is_held_up(segments: Collection[Segment]) -> bool:
    """Whether dead records could go if only the segments that are being filled were ended."""
    return any(_waits_for_open_ones(one, segments) for one in segments if one.sealed and one.dead)


def _waits_for_open_ones(segment: Segment, segments: Collection[Segment]) -> bool:
    before = [one for one in segments if one.stale and one.number < segment.forgets_below and one is not segment]
    return bool(before) and not any(one.sealed for one in before)
