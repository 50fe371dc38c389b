"""The version of a row: (generation, step) of its last update, packed into one int64 that sorts in the same order.

``0`` is the version of a row that was never updated. Steps count from 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

STEP_BITS = 40
MAX_STEP = (1 << STEP_BITS) - 1
MAX_GENERATION = (1 << (63 - STEP_BITS)) - 1
NEVER = 0


def pack_version(generation: int, step: int) -> int:
    """Pack one version. Raises ValueError outside 0..2**23-1 generations, 0..2**40-1 steps."""
    if not (0 <= generation <= MAX_GENERATION and 0 <= step <= MAX_STEP):
        raise ValueError(f"generation {generation}, step {step}: the limits are {MAX_GENERATION} and {MAX_STEP}")
    return generation << STEP_BITS | step


def unpack_versions(versions_n: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64 [n] -> int64 [n, 2]: (generation, step)."""
    return np.stack([versions_n >> STEP_BITS, versions_n & MAX_STEP], axis=-1)


def steps_of(versions_n: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """int64 [n] -> the steps alone."""
    return versions_n & MAX_STEP
