"""Where a replica reads: transports, a URL, a directory of segments or of shards, or a run directory, whose config tells."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.wire.errors import BrokerUnreachable, StreamAbsent
from pipeline.wire.nats.options import NatsOptions
from pipeline.wire.opening import FileOptions, is_url, parse_options, parse_url
from pipeline.wire.places import find_places
from pipeline.wire.redis.options import RedisOptions
from pipeline.wire.transport import Transport

LOG = logging.getLogger("rowstream.replica")
STREAM_DIR = "stream"


class StreamPlace:
    """Finds the transports of all shards when they are there: a replica may be started before its run."""

    def __init__(self, source: str | os.PathLike[str] | Transport | Sequence[Transport]) -> None:
        """Raises ValueError for an empty list."""
        self.trouble: BrokerUnreachable | None = None
        self._told: str | None = None
        self._path: str | None = None
        self._transports: tuple[Transport, ...] | None = None
        if isinstance(source, str | os.PathLike):
            self._path = os.fspath(source)
        else:
            self._transports = _listed(source)
        if self._transports == ():
            raise ValueError("a replica of no transport: give that of the stream, or those of all its shards")
        self.name = self._path or str(getattr(self._transports[0] if self._transports else None, "name", "stream"))

    def find(self) -> Sequence[Transport] | None:
        """In the order of the shards; None while the stream is not there, all shards of it. Raises TransportError for a URL that is no
        good, and for a broker that refuses; one that is not there is ``trouble``.
        """
        if self._transports is None and self._path is not None:
            try:
                found = _find(self._path)
            except BrokerUnreachable as error:
                self.trouble = error
            else:
                self.trouble = None
                self._transports = None if found is None else tuple(found)
        return self._transports

    def awaited(self) -> Sequence[Transport] | None:
        """As ``find``, for who goes on asking: a warning says once why nothing is there, and again when the reason is another one."""
        found = self.find()
        absent = f"{self.name}: no stream there yet; waiting for one"
        why = None if found is not None else absent if self.trouble is None else f"{self.trouble}; trying again"
        if why is not None and why != self._told:
            LOG.warning("%s", why)
        self._told = why
        return found

    def require(self) -> Sequence[Transport]:
        """The transports. Raises StreamAbsent, BrokerUnreachable and what ``find`` raises."""
        transports = self.find()
        if self.trouble is not None:
            raise self.trouble
        if transports is None:
            raise StreamAbsent(self.name)
        return transports

    def close(self) -> None:
        """Close transports that were made here; those that were given belong to the caller."""
        if self._path is not None:
            for transport in self._transports or ():
                transport.close()


def _find(path: str) -> Sequence[Transport] | None:
    if is_url(path):
        options, directory = parse_url(path)
    else:
        options, directory = _configured(path), Path(path)
    if directory is None or not isinstance(options, FileOptions):
        return find_places(options)
    return find_places(options, directory) or find_places(options, directory / STREAM_DIR)


def _configured(run_dir: str) -> FileOptions | NatsOptions | RedisOptions:
    """What carries the stream of the run in a directory, if there is one: its description says."""
    try:
        described = json.loads(Path(run_dir, "run.json").read_text())
        tree = (described["config"]["stages"].get("stream") or {}).get("transport")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return FileOptions()
    return FileOptions() if tree is None else parse_options(tree)


def _listed(source: Any) -> tuple[Transport, ...]:
    return tuple(source) if isinstance(source, Sequence) else (source,)
