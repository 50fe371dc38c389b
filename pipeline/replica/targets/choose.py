"""Which target a name stands for."""

from __future__ import annotations

import os
from typing import Final

from pipeline.replica.errors import BadTarget
from pipeline.replica.held import Held
from pipeline.replica.tables import Tables
from pipeline.replica.targets.durable import DiskTables, DurableTables
from pipeline.replica.targets.log_store import REAL_DISK, LogStore, StoreDisk
from pipeline.wire.frames import FrameLimits

MEMORY: Final = "memory"
ROWLOG: Final = "rowlog"


def open_target(
    target: str,
    path: str | os.PathLike[str] | None,
    pinned_bytes: int,
    wanted: frozenset[str] | None,
    limits: FrameLimits,
    disk: StoreDisk = REAL_DISK,
) -> Held:
    """What a replica applies cuts to. Touches nothing yet. Raises BadTarget."""
    if target == MEMORY and path is None:
        return Tables(pinned_bytes, wanted)
    if target in (MEMORY, ROWLOG):
        if path is None:
            raise BadTarget(f"target {ROWLOG!r} keeps rows on disk: say in which directory (path, --dir DIR)")
        make = DurableTables if target == MEMORY else DiskTables
        return make(LogStore(os.fspath(path), disk), pinned_bytes, wanted, limits)
    raise BadTarget(f"no target is named {target!r}: there are {MEMORY!r} and {ROWLOG!r}")
