"""Which target a name stands for."""

from __future__ import annotations

import os
import re
from importlib import import_module
from importlib.util import find_spec
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pipeline.replica.errors import BadTarget
from pipeline.replica.held import Held
from pipeline.replica.tables import Tables
from pipeline.replica.targets.durable import DiskTables, DurableTables
from pipeline.replica.targets.log_store import REAL_DISK, LogStore, StoreDisk
from pipeline.replica.targets.outside import Outside
from pipeline.replica.targets.target import Target
from pipeline.rows.spec import NAME_PATTERN
from pipeline.wire.frames import FrameLimits

MEMORY: Final = "memory"
ROWLOG: Final = "rowlog"
REDIS: Final = "redis"
REDIS_URL: Final = "redis://127.0.0.1:6379/0"
PREFIX: Final = "rowstream"


def open_target(
    target: str | Target,
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
    if path is not None:
        raise BadTarget(f"target {target!r} keeps rows and position by itself: leave out the directory (path, --dir)")
    return Outside(make_target(target), wanted, limits)


def make_target(target: str | Target) -> Target:
    """One that keeps rows outside. Raises BadTarget."""
    if not isinstance(target, str):
        return target
    scheme, colon, rest = target.partition(":")
    if target == REDIS or (scheme in ("redis", "rediss") and rest.startswith("//")):
        return _redis(REDIS_URL if target == REDIS else target)
    if not colon or not rest.isidentifier():
        raise BadTarget(
            f"no target is named {target!r}: there are {MEMORY!r}, {ROWLOG!r}, {REDIS!r} (or redis://HOST:PORT/DB?prefix=NAME), and one "
            "of your own as package.module:Class"
        )
    try:
        made = getattr(import_module(scheme), rest)()
    except (ImportError, AttributeError) as error:
        raise BadTarget(f"target {target!r}: {error}") from error
    if not isinstance(made, Target):
        raise BadTarget(f"target {target!r} is no Target: it needs what pipeline.replica.targets.target.Target has")
    return made


def _redis(url: str) -> Target:
    if find_spec("redis") is None:
        raise BadTarget("target redis needs the package redis: pip install 'rowstream[redis]'")
    from pipeline.replica.targets.redis_target import RedisTarget

    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    prefix = query.pop("prefix", PREFIX)
    if not re.fullmatch(NAME_PATTERN, prefix):
        raise BadTarget(f"prefix {prefix!r} does not match {NAME_PATTERN}")
    return RedisTarget(urlunsplit(parts._replace(query=urlencode(query))), prefix)
