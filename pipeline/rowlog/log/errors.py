"""What can go wrong with the row log. Every error says which file, where in it, and what would have worked."""

from __future__ import annotations

from pipeline.rowlog.errors import RowLogError


class LogCorrupt(RowLogError):
    """Bytes that are not those that were written: torn, flipped, replaced, or another table's."""

    def __init__(self, path: str, offset: int, what: str) -> None:
        super().__init__(f"{path} at offset {offset}: {what}; restore the file, or go back to a checkpoint without it")
        self.path, self.offset = path, offset


class LogFailed(RowLogError):
    """The log could not write; it takes nothing any more. What a checkpoint names is untouched."""

    def __init__(self, directory: str, error: BaseException) -> None:
        super().__init__(f"the row log in {directory} stopped writing: {error}")


class LogClosed(RowLogError):
    def __init__(self, directory: str) -> None:
        super().__init__(f"the row log in {directory} is closed")


class LogFull(RowLogError):
    """The log's byte bound was reached. The rows that were refused were not taken; all others are held."""

    def __init__(self, directory: str, table: str, rows: int, held_bytes: int, max_bytes: int) -> None:
        super().__init__(
            f"the row log in {directory} holds {held_bytes} of at most {max_bytes} bytes, segments that checkpoints need among them, and "
            f"cannot take {rows} more rows of table {table!r}: raise store.ssd.bytes, or keep fewer checkpoints (checkpoint.keep)"
        )
        self.table, self.rows, self.held_bytes, self.max_bytes = table, rows, held_bytes, max_bytes
