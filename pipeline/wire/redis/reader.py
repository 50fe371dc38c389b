"""One reader's connection to Redis. See ``broker.Reader``."""

from __future__ import annotations

import time
from typing import Any

import redis
from redis.exceptions import RedisError

from pipeline.wire.broker.broker import StreamState
from pipeline.wire.broker.entries import Entry
from pipeline.wire.errors import BrokerUnreachable
from pipeline.wire.redis.connection import START, connect, explain, keys_of, place_of
from pipeline.wire.redis.options import RedisOptions

BLOCK_S = 0.2
"""A read blocks no longer at once: a blocked client cannot be woken from another thread of this process."""
Failures = (RedisError, OSError)


class RedisReader:
    def __init__(self, options: RedisOptions) -> None:
        self._options, self._place = options, place_of(options)
        self._frames, self._meta, self._parts = keys_of(options)
        self._client: redis.Redis | None = None
        self._connection: Any = None
        self._stamp, self._next_id, self._count = 0, "0-0", 1
        self._woken = False

    def open(self, after: int | None) -> StreamState | None:
        self.close()
        client = self._client = connect(self._options)
        state = look(client, self._options)
        if state is None:
            self.close()
            return None
        self._stamp = state.stamp
        self._next_id = "0-0" if after is None else f"{state.stamp}-{after}"
        try:
            # Not the client: that connects again by itself, and nobody would know.
            self._connection = client.connection_pool.get_connection()
        except Failures as error:
            raise explain(error, self._place) from None
        payload_bytes = int(self._ask("HGET", self._meta, "payload") or 1)
        self._count = max(1, int(self._options.read_bytes) // max(payload_bytes, 1))
        return state

    def read(self, timeout: float) -> list[Entry]:
        deadline = time.monotonic() + timeout
        while True:
            left_s = min(deadline - time.monotonic(), BLOCK_S)
            found = self._read(max(int(left_s * 1000), 1) if left_s > 0 else None)
            if found or self._woken or time.monotonic() >= deadline:
                return found

    def _read(self, block_ms: int | None) -> list[Entry]:
        block = [] if block_ms is None else ["BLOCK", block_ms]
        reply = self._ask("XREAD", "COUNT", self._count, *block, "STREAMS", self._frames, self._next_id)
        if not reply:
            return []
        entries = [_entry(name, fields) for name, fields in reply[0][1]]
        if any(stamp != self._stamp for stamp, _ in entries):
            raise BrokerUnreachable(self._place, "another stream is there", "the reader looks again")
        self._next_id = f"{self._stamp}-{entries[-1][1].number}"
        return [entry for _, entry in entries]

    def _ask(self, *command: Any) -> Any:
        if self._connection is None:
            raise BrokerUnreachable(self._place, "the connection was lost", START)
        try:
            self._connection.send_packed_command(self._connection.pack_command(*command))
            return self._connection.read_response()
        except Failures as error:
            raise explain(error, self._place) from None

    def wake(self) -> None:
        self._woken = True

    def close(self) -> None:
        client, connection, self._client, self._connection = self._client, self._connection, None, None
        if connection is not None:
            connection.disconnect()
        if client is not None:
            if connection is not None:
                client.connection_pool.release(connection)
            client.close()


def _entry(name: bytes, fields: list[bytes]) -> tuple[int, Entry]:
    """The stamp that the id ``name`` tells, and the entry."""
    stamp, _, number = name.partition(b"-")
    by_name = dict(zip(fields[::2], fields[1::2], strict=True))
    return int(stamp), Entry(int(number), by_name.get(b"l", b"").decode(), by_name.get(b"p", b""))


def look(client: redis.Redis, options: RedisOptions) -> StreamState | None:
    """Raises BrokerUnreachable and others."""
    frames, meta, _ = keys_of(options)
    try:
        epoch, stamp, last = client.hmget(meta, ["epoch", "stamp", "last"])
        if epoch is None or stamp is None or last is None:
            return None
        oldest: Any = client.xrange(frames, count=1)
    except Failures as error:
        raise explain(error, place_of(options)) from None
    first = int(oldest[0][0].partition(b"-")[2]) if oldest else int(last) + 1
    return StreamState(f"{epoch.decode()}.{stamp.decode()}", int(stamp), first, int(last))  # type: ignore[union-attr]
