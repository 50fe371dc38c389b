"""Whether the disks have room for what ``store.ssd.bytes`` lets a log take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.session.errors import DisksTooSmall


def check_disk_room(directories: Sequence[str], max_bytes: int | None) -> None:
    """Raises DisksTooSmall. What the directories hold already counts as room: it is the log's, or the log removes it."""
    if max_bytes is None:
        return
    free_by_disk, held = dict[int, int](), 0
    for directory in map(Path, directories):
        held += sum(one.stat().st_size for one in directory.glob("*.seg"))
        there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
        disk = os.statvfs(there)
        free_by_disk[there.stat().st_dev] = disk.f_bavail * disk.f_frsize
    room = held + sum(free_by_disk.values())
    if room < max_bytes:
        raise DisksTooSmall(directories, max_bytes, room)
