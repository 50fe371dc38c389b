"""The Target interface: rows that a replica keeps outside its process, for others to read.

A user's own is named ``package.module:Class``; it is made without arguments, or given to ``Replica(target=...)`` as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from pipeline.replica.cuts import Applied, Cut
from pipeline.wire.frames import HeaderFrame


@runtime_checkable
class Target(Protocol):
    """One thread, one replica at a time. Calls block.

    What is raised ends the replica, and the next one goes on behind ``position``; ``TargetUnreachable`` lets the cut be applied again, from
    its beginning, for a while.
    """

    name: str
    """For errors and notices."""

    def position(self) -> bytes | None:
        """What the last ``commit`` of any process left; None: nothing. Called once, first."""

    def begin(self, header: HeaderFrame, tables: Sequence[str]) -> None:
        """The tables of the cuts to come, of which ``tables`` are held: before the first cut, and with each new header frame."""

    def apply(self, cut: Cut) -> None:
        """Write the rows of a cut (``cut.parts()``: one part is in memory at a time), and forget its tombstones; of a snapshot cut forget
        every row that it does not name. It may come again, wholly or with other cuts behind it: the rows that come last count.
        """

    def commit(self, applied: Applied, position: bytes) -> None:
        """Let readers know ``position``, together with the last rows of the cut or after them; never before. ``applied`` is the same as
        values. What outlives a crash is this position, or an earlier one, with rows that are no older.
        """

    def close(self) -> None:
        """May be called twice."""
