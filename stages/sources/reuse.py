"""Ids that recur within a period as they do in a batch of Meta's production ads models (``reuse.json``, shares by
reuse bin)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from stages.items import Int64s

OPEN_BIN_REACH = 4
"""The last bin has no upper bound; ids in it are taken to recur at most so many times its lower one."""


@lru_cache(maxsize=1)
def _figures() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(__file__).with_name("reuse.json").read_text(encoding="utf-8"))
    return loaded["years"]  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class ReuseTable:
    """Per bin: in each period ``accesses_i`` accesses go evenly to ``used_i`` of its ``universe_i`` ids. int64 [bins]
    each."""

    period: int
    accesses_i: Int64s
    used_i: Int64s
    universe_i: Int64s


def _mean_reuse(year: dict[str, Any], part: dict[str, Any]) -> float:
    """From the two shares where rounding leaves something of them, else the bin's geometric middle."""
    low, high = part["above"] + 1, part["up_to"] or part["above"] * OPEN_BIN_REACH
    if part["ids"] < 0.005:
        return sqrt(low * high)
    mean = part["accesses"] * year["accesses"] / (part["ids"] * year["distinct_ids"])
    return float(min(max(mean, low), high))


def _counts(year_name: str, period: int) -> tuple[Int64s, Int64s]:
    year = _figures()[year_name]
    bins = year["bins"]
    shares_i = np.array([part["accesses"] for part in bins])
    ends_i = np.rint(np.cumsum(shares_i) / shares_i.sum() * period).astype(np.int64)
    accesses_i = np.diff(ends_i, prepend=0)
    means_i = np.array([_mean_reuse(year, part) for part in bins])
    used_i = np.where(accesses_i > 0, np.maximum(np.rint(accesses_i / means_i), 1), 0).astype(np.int64)
    return accesses_i, used_i


def distinct_ids(year: str, period: int) -> int:
    """How many distinct ids a period needs."""
    return int(_counts(year, period)[1].sum())


def _period_of(year: str, ids: int) -> int:
    """The longest period that needs at most ``ids`` distinct ids."""
    low, high = 1, 2
    while distinct_ids(year, high) <= ids:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if distinct_ids(year, middle) <= ids else (low, middle)
    return low


def reuse_table(year: str, ids: int, period: int | None) -> ReuseTable:
    """Ids beyond what a period needs are shared out among the bins; each period then uses another part of them."""
    period = period if period is not None else _period_of(year, ids)
    accesses_i, used_i = _counts(year, period)
    universe_i = used_i * ids // max(int(used_i.sum()), 1)
    return ReuseTable(period, accesses_i, used_i, np.maximum(universe_i, used_i))
