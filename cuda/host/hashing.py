"""The hash under both maps of this room: the finalizer of splitmix64 (Stafford's mix 13).

It spreads ids that follow each other, and ids that differ in few bits. All arithmetic is uint64, modulo 2^64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cuda.host.compiled import device

_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_TABLE = np.uint64(0x9E3779B97F4A7C15)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


@device
def mix(number: Any) -> Any:
    """int64 -> uint64"""
    word = np.uint64(number)
    word = (word ^ (word >> _30)) * _FIRST
    word = (word ^ (word >> _27)) * _SECOND
    return word ^ (word >> _31)


@device
def mix_pair(table: int, number: int) -> Any:
    """(table, id) -> uint64"""
    return mix(np.int64(np.uint64(number) + np.uint64(table + 1) * _TABLE))
