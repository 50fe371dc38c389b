"""Where a table of the log sends what is to be written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.rowlog.log.segment import Extent, OpenSegment, Segment


@dataclass(frozen=True, slots=True)
class Sinks:
    """Written in the order in which it is sent. Called under the table's lock; they only queue."""

    extent: Callable[[OpenSegment, Extent], None]
    """Write it, then call ``LogTable.written``."""
    seal: Callable[[OpenSegment], None]
    """Write the footer, then call ``LogTable.sealed``."""
    retire: Callable[[Segment], None]
    """Nobody reads or names this segment any more: its file can go."""
