"""What an applier applies cuts to: an interface, for rows in memory, on disk and outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pipeline.replica.cuts import Applied, Cut, State
from pipeline.replica.table import Table
from pipeline.replica.view import View
from pipeline.wire.frames import HeaderFrame


class Held(Protocol):
    """One thread applies; any number open views meanwhile."""

    @property
    def state(self) -> State:
        """The last applied cut."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tables; none before the first header frame."""

    @property
    def num_rows(self) -> int: ...

    @property
    def lookups(self) -> int:
        """Rows that were asked for."""

    @property
    def notice(self) -> str | None:
        """What users should know of where rows go."""

    @property
    def pinned_views(self) -> int: ...

    @property
    def expired_views(self) -> int: ...

    def table(self, name: str) -> Table:
        """Raises UnknownTable."""

    def wants(self, name: str) -> bool: ...

    def restore(self) -> Applied | None:
        """Take up what an earlier life made durable; None: there is nothing. Before all else, once."""

    def describe(self, where: str, header: HeaderFrame) -> None:
        """Make the tables that a header names. Raises TableChanged, and UnknownTable for a wanted one it does not name."""

    def apply(self, cut: Cut) -> int:
        """Apply a whole, checked cut; it can be looked up when this returns. Returns how many rows were forgotten. What it raises
        leaves the rows torn.
        """

    def keep(self, cut: Cut) -> None:
        """Write what must survive of a cut that was applied: durable with the next ``commit``. After an error neither is called again."""

    def commit(self) -> Applied | None:
        """Make what was kept durable, rows and position together; None where nothing outlives the process."""

    def open_view(self, check: Callable[[], None]) -> View:
        """Pin what is shown now; ``check`` raises where nothing may be read any more."""

    def fail(self) -> None:
        """Nobody waits any more for a cut that was being applied."""

    def close(self) -> None:
        """Free what is open; what was not committed is gone. May be called twice."""
