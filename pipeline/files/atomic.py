"""Replacing a whole file: after a crash the name holds the old bytes or the new ones, never a part."""

from __future__ import annotations

import contextlib
import os

from pipeline.files.base import Buffer, Files, WritableFile

TEMPORARY_PREFIX = ".new-"
"""How unfinished files and directories are named; whoever owns the directory may remove them."""


def temporary_name(path: str) -> str:
    """The name under which ``path`` is written before it gets its own: same directory, so that a rename will do."""
    directory, name = os.path.split(path)
    return os.path.join(directory, TEMPORARY_PREFIX + name)


def create_anew(files: Files, path: str) -> WritableFile:
    """Create a file, removing one that an earlier crash left under its name."""
    if files.exists(path):
        files.remove(path)
    return files.create(path)


def write_atomically(files: Files, path: str, data: Buffer) -> None:
    """Write ``data`` under a temporary name, sync, rename to ``path``, sync the directory. Durable when it returns.

    One writer per path. On an error the temporary file is removed and
    ``path`` is untouched (unless the last sync failed).
    """
    file = create_anew(files, temporary_name(path))
    try:
        file.write(data)
        finish(files, file, path)
    except BaseException:
        discard(files, file)
        raise


def finish(files: Files, file: WritableFile, path: str) -> None:
    """Make a file written under its temporary name durable, close it and give it the name ``path``, durable too."""
    file.sync()
    file.close()
    files.rename(file.name, path)
    files.sync_dir(os.path.dirname(path) or ".")


def discard(files: Files, file: WritableFile) -> None:
    """Close and remove an unfinished file. Never raises an OSError: it runs while another error is on its way."""
    with contextlib.suppress(OSError):
        file.close()
    with contextlib.suppress(OSError):
        files.remove(file.name)
