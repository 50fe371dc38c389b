"""Which checkpoints a directory holds, newest first: ``checkpoints.json``, replaced atomically.

A checkpoint counts from the moment this file names it. What lies in the directory under our names and is not named
here was left by a crash, and the next writer removes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from pipeline.files import Files, write_atomically
from pipeline.files.atomic import TEMPORARY_PREFIX
from pipeline.rowlog.checkpoint.manifest import FORMAT_VERSION
from pipeline.rowlog.errors import CheckpointCorrupt, OtherFormat

CATALOG_NAME = "checkpoints.json"
CHECKPOINT_PREFIX = "step-"


def read_catalog(files: Files, directory: str) -> list[str]:
    """Names of the checkpoints, newest first; empty where there is no catalog."""
    path = os.path.join(directory, CATALOG_NAME)
    if not files.exists(path):
        return []
    data = files.read(path)
    try:
        fields = json.loads(data)
        found, names = fields["format"], fields["checkpoints"]
    except (ValueError, KeyError, TypeError):
        raise CheckpointCorrupt(path, 0, f"not a catalog of checkpoints: {data[:40]!r}") from None
    if found != FORMAT_VERSION:
        raise OtherFormat(path, found, FORMAT_VERSION)
    return [str(name) for name in names]


def write_catalog(files: Files, directory: str, names: Sequence[str]) -> None:
    """Durable when it returns."""
    data = json.dumps({"format": FORMAT_VERSION, "checkpoints": list(names)}).encode() + b"\n"
    write_atomically(files, os.path.join(directory, CATALOG_NAME), data)


def free_name(step: int, taken: Sequence[str]) -> str:
    """``step-000000000123``, or with ``-2``, ``-3`` ... behind it where a resumed run wrote that step before."""
    name = f"{CHECKPOINT_PREFIX}{step:012d}"
    number = 1
    while name in taken:
        number += 1
        name = f"{CHECKPOINT_PREFIX}{step:012d}-{number}"
    return name


def remove_leftovers(files: Files, directory: str, kept: Sequence[str]) -> None:
    """Remove checkpoints that are not in ``kept``, and unfinished files and directories."""
    for name in files.list(directory):
        if name.startswith((CHECKPOINT_PREFIX, TEMPORARY_PREFIX + CHECKPOINT_PREFIX)) and name not in kept:
            remove_tree(files, os.path.join(directory, name))


def remove_tree(files: Files, path: str) -> None:
    """Remove one checkpoint's directory: its files, which have no directories among them, then itself."""
    for name in files.list(path):
        files.remove(os.path.join(path, name))
    files.remove_dir(path)
