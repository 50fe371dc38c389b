"""Asks a replica that another process serves (``replica --serve --socket PATH``). Needs numpy alone.

    from pipeline.replica.client import ReplicaClient

    with ReplicaClient("replica.sock") as client:
        rows = client.lookup({"user": [1, 2, 3], "item": [7]})   # one cut for all tables
        rows.step, rows["user"]
        with client.view() as view:                               # one cut for all that is asked through it
            view.step, view.lookup("user", [1, 2, 3]), view.dense()

One thread at a time; a thread pool has a client each. Every call raises Unreachable where no whole answer comes in time, and
RequestRefused where the answer is an error; ``serving.errors`` has its kinds. The next call connects anew.
"""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.replica.serving.dense_body import pack_names, unpack_dense
from pipeline.replica.serving.errors import (
    BadMessage,
    RequestRefused,
    ServedTableUnknown,
    ServedViewExpired,
    ServiceBusy,
    TooLarge,
    Unreachable,
)
from pipeline.replica.serving.messages import receive_body, receive_header, send
from pipeline.replica.serving.protocol import (
    ANSWER,
    Bytes,
    Code,
    Flag,
    Header,
    Kind,
    Part,
    State,
    pack_header,
    pack_lookup,
    unpack_error,
    unpack_rows,
    unpack_state,
)
from pipeline.replica.serving.socket_place import connect

Float32s = npt.NDArray[np.float32]
NO_FLAGS: Final = Flag(0)
MOST_ANSWER_BYTES: Final = 1 << 30
AHEAD: Final = 32
"""Requests that wait for their answers at once."""
REFUSALS: Final = {
    Code.UNKNOWN_TABLE: ServedTableUnknown,
    Code.EXPIRED: ServedViewExpired,
    Code.BUSY: ServiceBusy,
    Code.CLOSING: ServiceBusy,
}


class ServedRows(Mapping[str, Float32s]):
    """Rows by table, float32 [n, dim], in the order asked; all of one cut. Owns their memory."""

    def __init__(self, state: State, rows: Mapping[str, Float32s], versions: Mapping[str, Any] | None) -> None:
        self.state, self._rows = state, rows
        self.versions = versions
        """If they were asked for: the packed version (``generation << 40 | step``) of each row by table; 0: never updated."""

    @property
    def step(self) -> int:
        return self.state.step

    @property
    def position(self) -> tuple[int, int]:
        """(generation, cut)."""
        return self.state.generation, self.state.cut

    def __getitem__(self, table: str) -> Float32s:
        return self._rows[table]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class ReplicaClient:
    """See the module docstring. Connects at the first call."""

    def __init__(self, path: str | os.PathLike[str], *, timeout_s: float | None = 10.0) -> None:
        """``path``: of the server's socket. ``timeout_s``: for a whole request and for a whole answer."""
        self._path, self._timeout_s = path, timeout_s
        self._socket: socket.socket | None = None
        self._number = 0
        self._pinned = False

    def lookup(self, wanted: Mapping[str, Any], *, versions: bool = False) -> ServedRows:
        """The rows of these ids by table: one cut. A row never updated has its initial weights."""
        (rows,) = self.lookups([wanted], versions=versions)
        return rows

    def lookups(self, many: Iterable[Mapping[str, Any]], *, versions: bool = False) -> Iterator[ServedRows]:
        """``lookup`` of each, in order; requests are sent ahead of the answers, so that none waits for the way between."""
        flags = Flag.VERSIONS if versions else NO_FLAGS
        waiting, answers = deque[tuple[int, list[Part]]](), deque[ServedRows]()

        def take() -> None:
            if not waiting:
                raise ConnectionResetError("the server says something that nobody asked")
            answers.append(self._rows(*waiting.popleft()))

        try:
            for wanted in many:
                parts = [Part(table, _ids(ids)) for table, ids in wanted.items()]
                if len(waiting) >= AHEAD:
                    take()
                waiting.append((self._send(Kind.LOOKUP, pack_lookup(parts), flags, take), parts))
                while answers:
                    yield answers.popleft()
            while waiting:
                take()
                yield answers.popleft()
        finally:
            if waiting:  # answers that nobody will read
                self.close()

    @contextmanager
    def view(self) -> Iterator[ClientView]:
        """Pin the newest cut until the block ends: everything asked through it is of that cut. One at a time. Once the server
        had to let its rows go, it raises ServedViewExpired.
        """
        if self._pinned:
            raise ValueError("this client has a view open; close it first, or use another client")
        state = unpack_state(self._ask(Kind.PIN)[1].data)
        self._pinned, pinned_on = True, self._socket
        try:
            yield ClientView(self, state, pinned_on)
        finally:
            self._pinned = False
            if self._socket is pinned_on and pinned_on is not None:
                with suppress(Unreachable):  # then nothing is pinned either
                    self._ask(Kind.UNPIN)

    def dense(self, names: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """The dense weights by name, all or those named; empty where the stream carries none."""
        return unpack_dense(self._ask(Kind.DENSE, pack_names(names))[1])

    def info(self) -> dict[str, Any]:
        """What the service says of itself: step, position, lag, freshness, counters, and rows and dim of each table."""
        found: dict[str, Any] = json.loads(bytes(self._ask(Kind.INFO)[1].data))
        return found

    def close(self) -> None:
        """May be called twice; the next call connects again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> ReplicaClient:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _rows(self, number: int, parts: Sequence[Part]) -> ServedRows:
        header, body_b = self._receive(number, Kind.LOOKUP)
        state, shape = unpack_rows(body_b, header.flags)
        names = [part.table for part in parts]
        if [rows for rows, _ in shape.shapes] != [len(part.ids_n) for part in parts]:
            raise BadMessage(f"an answer of {shape.shapes} rows and weights to a lookup in {names}")
        versions = shape.versions(body_b)
        found = dict(zip(names, shape.rows(body_b), strict=True))
        return ServedRows(state, found, None if versions is None else dict(zip(names, versions, strict=True)))

    def _ask(self, kind: Kind, body: Bytes = b"") -> tuple[Header, npt.NDArray[np.uint8]]:
        return self._receive(self._send(kind, body), kind)

    def _send(
        self, kind: Kind, body: Bytes, flags: Flag = NO_FLAGS, meanwhile: Callable[[], None] | None = None
    ) -> int:
        """``meanwhile`` takes an answer: the server reads nothing while an answer waits to be taken."""
        self._number += 1
        number = self._number
        with self._whole():
            if self._socket is None:
                self._socket = connect(self._path, self._timeout_s)
            message = pack_header(len(body), kind, number, flags) + body
            try:
                send(self._socket, [message], self._timeout_s, meanwhile)
            except ConnectionError:
                self._receive(number, kind)  # the server may have said why it ended the connection
                raise
            except RequestRefused:  # of an earlier request, in the middle of this one
                self.close()
                raise
        return number

    def _receive(self, number: int, kind: Kind) -> tuple[Header, npt.NDArray[np.uint8]]:
        with self._whole():
            if self._socket is None:
                raise ConnectionResetError("the connection was closed before the answer came")
            header = receive_header(self._socket, MOST_ANSWER_BYTES, self._timeout_s, self._timeout_s)
            if header is None:
                raise ConnectionResetError("the server closed the connection")
            body_b = receive_body(self._socket, header.length, self._timeout_s)
            if header.kind == Kind.ERROR:
                code, message = unpack_error(body_b.data)
                if header.request != number:  # not about this request: the connection ends
                    self.close()
                raise REFUSALS.get(Code(code), RequestRefused)(code, message)
            if (header.request, header.kind) != (number, kind + ANSWER):
                raise BadMessage(f"an answer of kind {header.kind} to request {header.request}, not {kind} to {number}")
        return header, body_b

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Nothing but whole messages passes: else the connection is of no use any more."""
        try:
            yield
        except (OSError, BadMessage, TooLarge) as error:
            self.close()
            raise Unreachable(self._path, str(error) or type(error).__name__) from None
        except BaseException as error:
            if not isinstance(error, RequestRefused):
                self.close()
            raise


class ClientView:
    """One cut, pinned in the server; made by ``ReplicaClient.view``."""

    def __init__(self, client: ReplicaClient, state: State, connection: socket.socket | None) -> None:
        self._client, self.state, self._connection = client, state, connection

    @property
    def step(self) -> int:
        """The step of the trainer at whose end this is the state; 0 before the first cut."""
        return self.state.step

    @property
    def position(self) -> tuple[int, int]:
        """(generation, cut)."""
        return self.state.generation, self.state.cut

    def lookup(self, table: str, ids_n: Any) -> Float32s:
        """Weights, float32 [n, dim]."""
        return self._pinned().lookup({table: ids_n})[table]

    def dense(self, names: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """The dense weights by name."""
        return self._pinned().dense(names)

    def _pinned(self) -> ReplicaClient:
        """Raises Unreachable: a new connection pins nothing."""
        if self._client._socket is not self._connection:
            raise Unreachable(self._client._path, "the connection that pinned this view is gone; open another view")
        return self._client


def _ids(ids: Any) -> npt.NDArray[np.int64]:
    """Raises TypeError for what is not integers, ValueError for another shape."""
    found = np.asarray(ids)
    if found.ndim != 1:
        raise ValueError(f"ids are one-dimensional; got shape {found.shape}")
    return found.astype(np.int64, casting="safe" if found.size else "unsafe", copy=False)
