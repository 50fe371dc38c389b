"""Where the rows of a frame go, when they are encoded straight into its bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class RowRoom:
    """One buffer with three gaps for n rows, each of which begins at any byte."""

    content_b: npt.NDArray[np.uint8]
    ids_at: int
    """n int64."""
    rows_at: int
    """The encoded weights, row behind row."""
    versions_at: int
    """n int64."""


MakeRoom = Callable[[npt.NDArray[np.int64]], RowRoom | None]
"""Given how many rows each table has [T]: room for them, table by table; None: they are too many."""
