"""The target ``redis``: rows as binary values, for any client to read; the keys are told in ``redis_format``.

Rules.

1. The rows of a short cut, and the last ones of a longer one, become visible with the position in one transaction. Rows of a longer cut
   before those are visible earlier: a reader may see rows newer than the position, never older ones.
2. The position that is there must be the one that this replica left: else another replica writes there, or the server lost its data, and
   what is there is left alone.
3. A server that may throw keys away when its memory is full is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from redis import Redis
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import RedisError, WatchError
from redis.exceptions import TimeoutError as TimedOut

from pipeline.replica.cuts import Applied, Cut
from pipeline.replica.errors import BadTarget, TargetChanged, TargetFailed, TargetUnreachable
from pipeline.replica.rowmap import Int64s
from pipeline.replica.targets import redis_format as form
from pipeline.rows.index import IdIndex
from pipeline.wire.frames import HeaderFrame

CHUNK_BYTES: Final = 4 << 20
"""Of one command: what Redis holds of it beside the rows."""
MOST_ROWS: Final = 1 << 15
SCAN_KEYS: Final = 10_000
TIMEOUT_S: Final = 30.0


class RedisTarget:
    """See ``target.Target`` and the module docstring."""

    def __init__(self, url: str, prefix: str) -> None:
        """Touches nothing yet. ``url`` as redis-py takes it, rediss:// encrypts. Raises BadTarget."""
        try:
            self._client: Any = Redis.from_url(
                url, single_connection_client=False, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
            )
        except ValueError as error:
            raise BadTarget(f"not the URL of a Redis server: {error}") from None
        kept: Any = self._client.connection_pool.connection_kwargs
        self.name = f"redis {kept.get('host', kept.get('path'))}:{kept.get('port', '')}, keys {prefix}:*"
        self._prefix, self._layout = prefix, b"{}"
        self._tables: list[str] = []
        self._last: bytes | None = None
        """The position that is there."""
        self._tried: bytes | None = None
        """The one that was to follow when the connection was lost."""
        self._pending: list[bytes] = []
        """Commands that wait for the position."""
        self._dense: dict[str, bytes] | None = None
        self._connection: Any = None

    def position(self) -> bytes | None:
        with self._told():
            memory = self._client.info("memory")
            policy = memory.get("maxmemory_policy", "noeviction")
            if int(memory.get("maxmemory", 0)) and policy != "noeviction":
                raise BadTarget(
                    f"{self.name} throws keys away when it is full (maxmemory-policy {policy}): set noeviction"
                )
            self._last = self._client.get(self._key("position"))
            return self._last

    def begin(self, header: HeaderFrame, tables: Sequence[str]) -> None:
        self._tables = list(tables)
        self._layout = form.layout_json(header, self._tables)

    def apply(self, cut: Cut) -> None:
        with self._told():
            self._watch()
            named = {table: IdIndex() for table in self._tables} if cut.snapshot else {}
            for part in cut.parts():
                prefix = form.row_prefix(self._prefix, part.table)
                rows = max(1, min(MOST_ROWS, CHUNK_BYTES // (8 + 4 * part.dim + part.extra_nx.shape[1])))
                for chunk in part.chunks(rows):
                    self._queue(form.set_command(prefix, chunk.ids_n, form.values_of(chunk)))
                    if cut.snapshot:
                        named[part.table].insert(chunk.ids_n)
                self._delete(prefix, part.tombstones_m)
            for table, some in named.items():
                self._delete_others(form.row_prefix(self._prefix, table), some)
            self._dense = None if cut.dense is None else form.npy_bytes(cut.dense)

    def commit(self, applied: Applied, position: bytes) -> None:
        del applied
        with self._told():
            pack = self._connection.pack_command
            commands = [b"".join(pack("MULTI")), *self._pending]
            commands.append(b"".join(pack("SET", self._key("layout"), self._layout)))
            if self._dense is not None:
                commands.append(b"".join(pack("DEL", self._key("dense"))))
                for name, data in self._dense.items():
                    commands.append(b"".join(pack("HSET", self._key("dense"), name, data)))
            commands.append(b"".join(pack("SET", self._key("position"), position)))
            commands.append(b"".join(pack("EXEC")))
            self._tried = position
            self._send(commands)
            self._last, self._tried, self._pending, self._dense = position, None, [], None

    def close(self) -> None:
        self._let_go()
        self._client.close()

    def _key(self, name: str) -> str:
        return f"{self._prefix}:{name}"

    def _watch(self) -> None:
        """Rule 2, on a connection of our own."""
        self._pending = []
        if self._connection is None:
            self._connection = self._client.connection_pool.get_connection()
        self._connection.send_command("UNWATCH")
        self._connection.read_response()
        self._connection.send_command("WATCH", self._key("position"))
        self._connection.read_response()
        self._connection.send_command("GET", self._key("position"))
        found = self._connection.read_response()
        if found is not None and found == self._tried:
            self._last = found
        if found != self._last:
            raise TargetChanged(self.name)

    def _queue(self, command: bytes) -> None:
        """What waited before is sent: only the last commands wait for the position."""
        if self._pending and sum(map(len, self._pending)) + len(command) > CHUNK_BYTES:
            pending, self._pending = self._pending, []
            self._send(pending)
        self._pending.append(command)

    def _send(self, commands: list[bytes]) -> None:
        self._connection.send_packed_command(commands)
        answers = [self._connection.read_response() for _ in commands]
        if commands[-1].endswith(b"EXEC\r\n") and answers[-1] is None:
            raise WatchError

    def _delete(self, prefix: bytes, ids_n: Int64s) -> None:
        for start in range(0, len(ids_n), MOST_ROWS):
            self._queue(form.delete_command(prefix, ids_n[start : start + MOST_ROWS]))

    def _delete_others(self, prefix: bytes, named: IdIndex) -> None:
        """Forget the rows of a table that a snapshot cut does not name."""
        for keys in self._scan(prefix + b"*"):
            ids_n = form.ids_of(prefix, keys)
            if ids_n is None:
                raise TargetFailed(self.name, f"there are keys {prefix.decode()}* that no replica wrote")
            self._delete(prefix, ids_n[named.find(ids_n) < 0])

    def _scan(self, pattern: bytes) -> Iterator[list[bytes]]:
        cursor = 0
        while True:
            cursor, keys = self._client.scan(cursor, match=pattern, count=SCAN_KEYS)
            yield keys
            if not cursor:
                return

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors as ours. After one, the connection is not used again: nobody knows which answers are still to come."""
        try:
            yield
        except WatchError:
            self._let_go()
            raise TargetChanged(self.name) from None
        except (LostConnection, TimedOut, OSError) as error:
            self._let_go()
            raise TargetUnreachable(self.name, str(error)) from None
        except RedisError as error:
            self._let_go()
            raise TargetFailed(self.name, str(error)) from None

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._client.connection_pool.release(connection)
