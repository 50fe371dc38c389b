"""Which cut a replica may apply: a pure decision, from the one applied position.

Rules.

1. A cut at or below the applied position was applied before: it is dropped.
2. An ordinary cut may be applied when the cut before it, which it names, is at or below the applied position. Otherwise
   cuts are missing, and only a snapshot cut helps.
3. A snapshot cut above the applied position is loaded. It is the state at its position, whatever the replica held.
4. The step never falls but with a newer generation: at its rewind cut, or at a snapshot cut behind it.
5. A newer generation that continues the one which the applied step is of computes the same bits again. Where it has to begin below that
   step, because what was published is gone (a broker without its data), its cuts bring nothing new: they are passed over, and the
   position with them, until one comes that is not below. In best effort the applied step says nothing of what is held: such a cut is
   refused.
"""

from __future__ import annotations

from enum import Enum

from pipeline.replica.cuts import Applied
from pipeline.wire.frames import CommitFrame, CutPosition, HeaderFrame


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


def says_nothing_new(applied: Applied, commit: CommitFrame, header: HeaderFrame) -> bool:
    """Whether a cut that may be applied is passed over by rule 5; ``header`` is that of its generation."""
    if commit.step >= applied.step or commit.rewind or header.best_effort or header.continues is None:
        return False
    return header.continues <= applied.computed_by < commit.generation


def goes_back(applied: CutPosition, step: int, commit: CommitFrame) -> bool:
    """Whether a cut that may be applied breaks rule 4, ``step`` being that of the applied one."""
    may_fall = commit.generation > applied.generation and (commit.rewind or commit.snapshot)
    return commit.step < step and not may_fall
