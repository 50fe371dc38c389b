"""The one small interface for all file work, so that a test double can hold unsynced data apart.

Rules.

1. A file is written at its end only. What ``write`` took is visible to readers at once, and durable after ``sync``.
2. A name made by ``create``, ``link``, ``rename`` or ``remove`` is durable after ``sync_dir`` of its directory.
3. ``rename`` replaces what has the new name, atomically: a reader, or a crash, sees the old file or the new one.
4. One writer per file; any number of readers. All methods block, and none belongs on the event loop's thread.
5. Errors are OSErrors that carry the path; a full disk is ``DiskFull``.
"""

from __future__ import annotations

from typing import Protocol

Buffer = bytes | bytearray | memoryview


class WritableFile(Protocol):
    """A file open for appending. Owned by one thread at a time."""

    name: str
    """Its path."""
    size: int
    """Where the next write goes, in bytes."""

    def write(self, data: Buffer, *more: Buffer) -> int:
        """Append all of ``data``, and of ``more`` (a few parts) behind it, and return the offset where it begins.

        They are one write: if it cannot be written whole, what was written of it is cut off again as far as the system
        lets, and the error is raised; ``size`` is then as before.
        """

    def sync(self) -> None:
        """Make everything written so far durable. After a failure the file raises BrokenFile in all but ``close``."""

    def close(self) -> None:
        """Close without syncing. May be called twice."""


class Files(Protocol):
    """Everything that is done with files. Paths are absolute or relative to the process's directory."""

    def create(self, path: str) -> WritableFile:
        """A new, empty file. Raises FileExistsError."""

    def open_append(self, path: str) -> WritableFile:
        """An existing file, to go on at its end. Raises FileNotFoundError."""

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """``size`` bytes from ``offset`` (None: all that follow); fewer where the file ends before."""

    def size(self, path: str) -> int:
        """Bytes in the file, written or synced."""

    def exists(self, path: str) -> bool:
        """Whether a file or directory has this name."""

    def list(self, directory: str) -> list[str]:
        """Names (not paths) in a directory, sorted."""

    def make_dirs(self, path: str) -> None:
        """Make a directory and the missing ones above it, durable. No error if it is there."""

    def rename(self, old: str, new: str) -> None:
        """Give a file the name ``new``, replacing the file that has it; or a directory, if nothing has that name."""

    def link(self, old: str, new: str) -> None:
        """Give a file that nobody writes to any more a second name. Raises OSError where the file system cannot, say on another
        disk, and FileExistsError.
        """

    def remove(self, path: str) -> None:
        """Remove a file. Raises FileNotFoundError."""

    def remove_dir(self, path: str) -> None:
        """Remove an empty directory."""

    def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""

    def truncate(self, path: str, size: int) -> None:
        """Cut a file to its first ``size`` bytes. Not for a file that will be written through an open WritableFile."""
