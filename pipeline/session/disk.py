"""What a run does its file work with: the system's files, or in tests a double of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.files import Files, RealFiles
from pipeline.rowlog.log import RowReads
from pipeline.rowlog.log.real_reads import RealReads


@dataclass(frozen=True, slots=True)
class Disk:
    """``reads``: of single rows, from a depth and whether they go past the page cache."""

    files: Files = field(default_factory=RealFiles)
    reads: Callable[[int, bool], RowReads] = RealReads
