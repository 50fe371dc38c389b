"""Whether the service may be asked: a pure decision, and the facts it is made from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.replica.replica import Lag
from pipeline.wire.frames import START, CutPosition

READY_LAG_S = 10.0


@dataclass(frozen=True, slots=True)
class Facts:
    position: CutPosition
    lag: Lag
    caught_up: bool
    """When it looked last, nothing more was there to be applied."""
    closing: bool = False
    error: str | None = None
    """What ended the following of the stream."""


def why_not_ready(facts: Facts, ready_lag_s: float) -> str | None:
    """None where lookups may be sent here: the first cut is applied, no cut is missing, and what is held is either all that there is,
    or at most ``ready_lag_s`` old.
    """
    if facts.closing:
        return "the service ends"
    if facts.error is not None:
        return f"it follows the stream no more: {facts.error}"
    if facts.position == START:
        return "no cut was applied yet"
    if facts.lag.waiting:
        return "cuts are missing; it waits for a snapshot cut"
    if not facts.caught_up and not facts.lag.age_s <= ready_lag_s:
        age = "of unknown age" if math.isnan(facts.lag.age_s) else f"{facts.lag.age_s:.1f} s old"
        return f"the cut it holds is {age}, and newer ones wait to be applied; at most {ready_lag_s:g} s are allowed"
    return None
