"""The writer's connection to Redis. See ``broker.Link``.

How order is kept. Entries have explicit ids, STAMP-NUMBER, and a script appends them only where claim, session and the newest number
are those that the writer knows. It runs whole or not at all. Scripts are sent without waiting for their replies; one that fails makes
all behind it fail. A resync begins another session, so nothing that an earlier connection still carries is appended.
"""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import redis
from redis.exceptions import RedisError

from pipeline.wire.broker.broker import Resynced, StreamState
from pipeline.wire.broker.entries import Entry
from pipeline.wire.errors import BrokerUnreachable, StreamLost, TransportError
from pipeline.wire.redis.connection import SCRIPTS, START, connect, explain, keys_of, place_of
from pipeline.wire.redis.durability import check_durability
from pipeline.wire.redis.options import RedisOptions

CALL_BYTES = 1 << 20
"""Entries of so many bytes are appended by one call: the server does nothing else meanwhile."""
Failures = (RedisError, OSError)


class RedisLink:
    def __init__(self, options: RedisOptions, generation: int, token: str) -> None:
        """``generation`` 0: claims whoever has claimed before. ``token`` tells this writer's own claims from others."""
        self.payload_bytes = int(options.payload_bytes)
        self._options, self._generation, self._token = options, generation, token
        self._place, self._keys = place_of(options), keys_of(options)
        self._client: redis.Redis | None = None
        self._connection: Any = None
        self._waiting: deque[int] = deque()
        self._error: TransportError | None = None
        self._append = ""
        self._acknowledged = 0
        self._claim, self._session, self._stamp = "", "0", ""

    @property
    def acknowledged(self) -> int:
        """Takes the replies that are there. An error among them is raised by the next call."""
        with contextlib.suppress(TransportError):
            while self._error is None and self._waiting and self._has_reply():
                self._take_reply()
        return self._acknowledged

    def claim(self, *, lost: StreamState | None = None) -> StreamState:
        client = self._connect()
        if self._options.durability != "any":
            check_durability(client, self._place)
        given = (
            str(self._generation),
            self._token,
            uuid.uuid4().hex[:16],
            str(self.payload_bytes),
            "" if lost is None else str(lost.stamp),
        )
        claim, epoch, stamp, last = self._call(SCRIPTS["claim"], *given)
        self._claim, self._session, self._stamp = claim.decode(), "0", stamp.decode()
        self._acknowledged = int(last)
        return StreamState(f"{epoch.decode()}.{stamp.decode()}", int(stamp), 1, int(last))

    def begin_part(self) -> None:
        """The script notes where parts begin."""

    def send(self, entries: Sequence[Entry]) -> None:
        connection = self._connection
        if connection is None:
            raise BrokerUnreachable(self._place, "the connection was lost", START)
        if self._error is not None:
            raise self._error
        try:
            for some in _calls(entries):
                given = [self._claim, self._session, self._stamp, str(some[0].number - 1)]
                for entry in some:
                    given += [entry.label, entry.payload]  # type: ignore[list-item]
                connection.send_packed_command(
                    connection.pack_command("EVALSHA", self._append, len(self._keys), *self._keys, *given)
                )
                self._waiting.append(some[-1].number)
        except Failures as error:
            raise explain(error, self._place) from None

    def wait(self, number: int) -> None:
        while self._acknowledged < number:
            if self._error is not None:
                raise self._error
            if not self._waiting:
                raise BrokerUnreachable(self._place, "the connection was lost", START)
            self._take_reply()

    def _has_reply(self) -> bool:
        try:
            return bool(self._connection.can_read(0))
        except Failures as error:
            self._error = explain(error, self._place)
            return False

    def _take_reply(self) -> None:
        """The oldest one that is waited for. What it says is wrong tells why all behind it fail."""
        try:
            self._connection.read_response()
        except Failures as error:
            self._error = explain(error, self._place)
            raise self._error from None
        self._acknowledged = self._waiting.popleft()

    def resync(self) -> Resynced:
        self._disconnect()
        self._connect()
        session, last = self._call(SCRIPTS["resync"], self._claim, self._stamp)
        if int(last) < self._acknowledged:
            raise StreamLost(self._place, f"the stream ends at {int(last)}; {self._acknowledged} was acknowledged")
        self._session, self._acknowledged = session.decode(), int(last)
        return Resynced(int(last), int(last))

    def trim(self, number: int) -> int:
        return int(self._call(SCRIPTS["trim"], self._claim, self._stamp, str(number)))

    def abort(self) -> None:
        wanted = getattr(self._connection, "_sock", None)  # its own `disconnect` is for the thread that uses it
        if wanted is not None:
            with contextlib.suppress(OSError):
                wanted.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._disconnect()

    def _call(self, script: str, *given: str) -> Any:
        if self._client is None:
            raise BrokerUnreachable(self._place, "the connection was lost", START)
        try:
            return self._client.eval(script, len(self._keys), *self._keys, *given)
        except Failures as error:
            raise explain(error, self._place) from None

    def _connect(self) -> redis.Redis:
        client = self._client = connect(self._options)
        try:
            self._append = str(client.script_load(SCRIPTS["append"]))
            self._connection = client.connection_pool.get_connection()
        except Failures as error:
            raise explain(error, self._place) from None
        return client

    def _disconnect(self) -> None:
        client, connection = self._client, self._connection
        self._client, self._connection, self._waiting, self._error = None, None, deque(), None
        if connection is not None:
            connection.disconnect()
        if client is not None:
            if connection is not None:
                client.connection_pool.release(connection)
            client.close()


def _calls(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    some: list[Entry] = []
    nbytes = 0
    for entry in entries:
        if some and nbytes + len(entry.payload) > CALL_BYTES:
            yield some
            some, nbytes = [], 0
        some.append(entry)
        nbytes += len(entry.payload)
    yield some
