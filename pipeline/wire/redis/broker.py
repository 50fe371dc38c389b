"""Redis Streams as a ``broker.Broker``: what a transport is made of."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

from redis.exceptions import RedisError

from pipeline.wire.broker.broker import StreamState
from pipeline.wire.broker.entries import Entry
from pipeline.wire.redis.connection import connect, explain, keys_of, place_of
from pipeline.wire.redis.link import RedisLink
from pipeline.wire.redis.options import RedisOptions
from pipeline.wire.redis.reader import RedisReader, look

PAGE = 16


class RedisBroker:
    kind = "redis"

    def __init__(self, options: RedisOptions, generation: int = 0) -> None:
        """``generation`` of the trainer that may claim; 0: of nobody, who claims from anybody."""
        self.place = place_of(options)
        self._options, self._generation = options, generation
        self._token = uuid.uuid4().hex

    def look(self) -> StreamState | None:
        with contextlib.closing(connect(self._options)) as client:
            return look(client, self._options)

    def link(self) -> RedisLink:
        return RedisLink(self._options, self._generation, self._token)

    def reader(self) -> RedisReader:
        return RedisReader(self._options)

    def parts(self) -> Iterator[list[Entry]]:
        frames, meta, parts = keys_of(self._options)
        with contextlib.closing(connect(self._options)) as connected:
            client: Any = connected  # its types know replies of other settings too
            try:
                stamp, last = client.hmget(meta, ["stamp", "last"])
                if stamp is None or last is None:
                    return
                end = int(last)
                for name in client.zrevrange(parts, 0, -1):
                    start = int(name.partition(b":")[0])
                    yield list(self._entries(client, frames, stamp.decode(), start, end))
                    end = start - 1
            except (RedisError, OSError) as error:
                raise explain(error, self.place) from None

    @staticmethod
    def _entries(client: Any, frames: str, stamp: str, start: int, end: int) -> Iterator[Entry]:
        while start <= end:
            page = client.xrange(frames, f"{stamp}-{start}", f"{stamp}-{end}", count=PAGE)
            if not page:
                return
            for name, fields in page:
                start = int(name.partition(b"-")[2]) + 1
                yield Entry(start - 1, fields[b"l"].decode(), fields[b"p"])

    def remove(self) -> None:
        with contextlib.closing(connect(self._options)) as client:
            try:
                client.delete(*keys_of(self._options))
            except (RedisError, OSError) as error:
                raise explain(error, self.place) from None

    def close(self) -> None:
        """Each connection belongs to who made it."""
