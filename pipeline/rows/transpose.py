"""Bytes of items turned: all first bytes, then all second ones, and so on."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit

from pipeline.rows.arrays import read_only

BLOCK: Final = 64
"""Items that are turned together: they and the lines they are written to stay in the nearest cache."""


@njit(nogil=True, cache=True)
def _turn(source_b, count, width, out_b):  # type: ignore[no-untyped-def]
    """uint8 [count * width], item behind item -> [width * count]."""
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        for byte in range(width):
            line_n = out_b[byte * count + start : byte * count + stop]
            items_b = source_b[start * width + byte :]
            for n in range(line_n.shape[0]):
                line_n[n] = items_b[n * width]


def transpose_bytes(data_b: npt.NDArray[np.uint8], count: int, width: int) -> npt.NDArray[np.uint8]:
    """``count`` items of ``width`` bytes, uint8 [count * width], contiguous -> a new array. Turn it back with the numbers exchanged."""
    out_b = np.empty(count * width, dtype=np.uint8)
    _turn(read_only(data_b, np.uint8), count, width, out_b)
    return out_b
