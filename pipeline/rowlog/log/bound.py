"""How many bytes a log may take on disk.

A segment counts in full from the moment it is begun, so that what it will hold has its room. What compaction moves is never refused:
it ends in less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pipeline.rowlog.log.errors import LogFull

if TYPE_CHECKING:
    from pipeline.rowlog.log.log_table import LogTable

SEGMENTS_PER_TABLE: Final = 4
"""That a table needs at least: one for each kind of records that is being filled, and one that is left."""


class Bound:
    """Of all ``tables`` together; ``max_bytes``: None for none."""

    def __init__(self, directory: str, tables: Mapping[str, LogTable], max_bytes: int | None) -> None:
        self._directory, self._tables, self.max_bytes = directory, tables, max_bytes

    @property
    def held_bytes(self) -> int:
        """Of all files, those that are being written counted as full."""
        return sum(table.accounts.disk_bytes for table in self._tables.values())

    def has_room(self, table: LogTable, rows: int) -> bool:
        return self.max_bytes is None or self.held_bytes + self._new_bytes(table, rows) <= self.max_bytes

    def check(self, table: LogTable, rows: int) -> None:
        """Raises LogFull where so many more rows of a table do not fit."""
        if self.max_bytes is not None and not self.has_room(table, rows):
            raise LogFull(self._directory, table.spec.name, rows, self.held_bytes, self.max_bytes)

    def _new_bytes(self, table: LogTable, rows: int) -> int:
        """Of the segments that have to be begun for them, at most."""
        return -(-rows // table.capacity) * table.full_bytes
