"""What a replica says of itself: the figures of the command line, for people and for programs."""

from __future__ import annotations

import math
from typing import Any

from pipeline.replica.replica import Replica


def figures(replica: Replica) -> dict[str, Any]:
    """For programs: plain values. Position is [generation, cut]; ``age_s`` is None before the first cut."""
    lag = replica.lag
    return {
        "position": list(replica.position),
        "step": replica.step,
        "durable": list(replica.durable_position),
        "ended": replica.ended,
        "rows": replica.num_rows,
        "tables": list(replica.tables),
        "lag": {
            "cuts": lag.cuts,
            "steps": lag.steps,
            "age_s": None if math.isnan(lag.age_s) else round(lag.age_s, 3),
            "waiting": lag.waiting,
            "ahead": lag.ahead,
            "unsent": lag.unsent,
            "unsent_s": round(lag.unsent_s, 3),
        },
        "freshness_ms": replica.freshness_ms(),
        "counters": replica.counters.as_dict() | {"lookups": replica.lookups},
    }


def lines(replica: Replica) -> dict[str, str]:
    """For people: a few short texts by name."""
    lag, fresh, position = replica.lag, replica.freshness_ms(), replica.position
    if lag.waiting:
        behind = "waiting for a snapshot cut"
    else:
        age = "no cut yet" if math.isnan(lag.age_s) else f"{lag.age_s:.1f} s old"
        behind = f"{lag.cuts} cuts, {lag.steps} steps; {age}"
    shown = {
        "position": f"cut {position.cut} of generation {position.generation}, step {replica.step}",
        "rows": f"{replica.num_rows:,}",
        "lag": behind,
        "run": "ended" if replica.ended else "no end seen",
        "lookups": f"{replica.lookups:,}",
    }
    if lag.ahead:
        shown["ahead"] = f"{lag.ahead} steps, of a trainer whose stream was lost and that comes here again"
    if lag.unsent is not None:
        told = f"{lag.unsent:,} rows, the oldest change {lag.unsent_s:.1f} s old" if lag.unsent else "no row"
        shown["best effort"] = f"each row is one of the trainer's, all together no step's end; {told} unsent"
    if fresh["steps"]:
        shown["freshness"] = f"p50 {fresh['p50']} ms, p99 {fresh['p99']} ms, max {fresh['max']} ms"
    return shown
