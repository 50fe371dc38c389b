"""How many rows fit into so many bytes, with all that a cache keeps beside them."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Final

from cuda.host.slotmap import capacity_for
from cuda.host.tables import stride_for
from pipeline.rows.spec import TableSpec
from pipeline.store.errors import CacheTooSmall

LEAST_ROWS: Final = 64
"""Rows of the smallest batch worth writing to the tier below."""
SLOT_BYTES: Final = 32 + 4 + 20 + 16
"""Beside each row: its slot's record, its place in the free list and in the victim queue, a scan's scratch."""
MAP_BYTES: Final = 8 + 12
"""The version, which may lie apart from the row, and the (table, id) of the slot."""
ENTRY_BYTES: Final = 16
"""An entry of the map from (table, id) to slot."""
PAGES: Final = 2 * mmap.PAGESIZE
"""Rows and records start on pages of their own."""


def bytes_for(specs: Sequence[TableSpec], rows: int) -> int:
    """What a cache of ``rows`` rows takes: every row has the width of the widest table's."""
    stride = stride_for(max(spec.layout.row_bytes for spec in specs))
    return PAGES + rows * (stride + SLOT_BYTES + MAP_BYTES) + ENTRY_BYTES * capacity_for(rows)


def rows_within(specs: Sequence[TableSpec], max_bytes: int) -> int:
    """The most rows that take at most ``max_bytes``. Raises CacheTooSmall below ``LEAST_ROWS``."""
    if max_bytes < bytes_for(specs, LEAST_ROWS):
        raise CacheTooSmall(max_bytes, LEAST_ROWS, bytes_for(specs, LEAST_ROWS))
    low, high = LEAST_ROWS, 2**31 - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if bytes_for(specs, middle) <= max_bytes else (low, middle - 1)
    return low
