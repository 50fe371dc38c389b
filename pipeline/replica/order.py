"""Which cut a replica may apply: a pure decision, from the one applied position.

Rules.

1. A cut at or below the applied position was applied before: it is dropped.
2. An ordinary cut may be applied when the cut before it, which it names, is at or below the applied position. Otherwise
   cuts are missing, and only a snapshot cut helps.
3. A snapshot cut above the applied position is loaded. It is the state at its position, whatever the replica held.
4. The step never falls but with a newer generation: at its rewind cut, or at a snapshot cut behind it.
5. A newer generation whose stream is another one (the storage of the old one is gone) and that says of no fork computes the same bits
   again. Its cuts below the applied step bring nothing new: they are passed over, and the position with them, until one comes that is
   not below. In best effort the applied step says nothing of what is held: such a cut is refused.
"""

from __future__ import annotations

from enum import Enum

from pipeline.replica.cuts import Applied
from pipeline.wire.frames import CommitFrame, CutPosition


class Verdict(Enum):
    APPLY = "apply"
    DROP = "drop"
    LACKS = "lacks"


def judge(applied: CutPosition, commit: CommitFrame) -> Verdict:
    """What to do with a committed cut."""
    if commit.position <= applied:
        return Verdict.DROP
    if commit.snapshot or commit.previous <= applied:
        return Verdict.APPLY
    return Verdict.LACKS


def says_nothing_new(applied: Applied, commit: CommitFrame, epoch: str, *, best_effort: bool) -> bool:
    """Whether a cut that may be applied is passed over by rule 5; it comes from storage of that ``epoch``. One with which a run ends is
    not: the trainer is then below the replica for good.
    """
    if commit.step >= applied.step or commit.rewind or commit.end or best_effort:
        return False
    if applied.ahead:
        return True
    was = [place.epoch for place in applied.places]
    return commit.generation > applied.position.generation and not commit.snapshot and bool(was) and epoch not in was


def goes_back(applied: CutPosition, step: int, commit: CommitFrame) -> bool:
    """Whether a cut that may be applied breaks rule 4, ``step`` being that of the applied one."""
    may_fall = commit.generation > applied.generation and (commit.rewind or commit.snapshot)
    return commit.step < step and not may_fall
