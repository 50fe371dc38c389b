"""Answers the requests of one connection. Runs on the connection's thread; rows are found and copied in native code."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np

from pipeline.replica.errors import ReplicaClosed, ReplicaFailed, UnknownTable, ViewExpired
from pipeline.replica.replica import Replica
from pipeline.replica.report import figures
from pipeline.replica.serving.dense_body import pack_dense, unpack_names
from pipeline.replica.serving.errors import BadMessage, NoRoom, TooLarge
from pipeline.replica.serving.protocol import (
    ANSWER,
    HEADER,
    STATE,
    Bytes,
    Code,
    Flag,
    Header,
    Kind,
    Limits,
    Part,
    RowsShape,
    State,
    pack_error,
    pack_header,
    unpack_lookup,
)
from pipeline.replica.serving.room import Room
from pipeline.replica.view import View

CODES: Mapping[type[Exception], Code] = {
    BadMessage: Code.BAD_REQUEST,
    UnknownTable: Code.UNKNOWN_TABLE,
    TooLarge: Code.TOO_LARGE,
    ViewExpired: Code.EXPIRED,
    NoRoom: Code.BUSY,
    ReplicaClosed: Code.CLOSING,
    ReplicaFailed: Code.FAILED,
}


class Watch(Protocol):
    """Who counts what is answered. Called from many threads."""

    def looked_up(self, rows: int, seconds: float) -> None: ...
    def refused(self, code: Code) -> None: ...


class Answers:
    """See the module docstring. Holds the view that the connection has pinned, if it has."""

    def __init__(self, replica: Replica, limits: Limits, room: Room, watch: Watch) -> None:
        self._replica, self._limits, self._room, self._watch = replica, limits, room, watch
        self._pinned: View | None = None

    def close(self) -> None:
        """Unpin."""
        if self._pinned is not None:
            self._pinned.close()
            self._pinned = None

    @contextmanager
    def answer(self, header: Header, body: Bytes) -> Iterator[Sequence[Bytes]]:
        """The whole answer, header first, in pieces; its room is held until the block ends. An error is an answer too."""
        with ExitStack() as stack:
            pieces: Sequence[Bytes]
            try:
                pieces = stack.enter_context(self._make(header, body))
            except Exception as error:  # whatever a request ran into is told to who asked; others go on being answered
                self._watch.refused(_code(error))
                pieces = [pack_error(header.request, _code(error), str(error) or type(error).__name__)]
            del body  # a slow client holds its answer, not its request too
            yield pieces

    def _make(self, header: Header, body: Bytes) -> AbstractContextManager[Sequence[Bytes]]:
        match header.kind:
            case Kind.LOOKUP:
                return self._lookup(header, unpack_lookup(body))
            case Kind.DENSE:
                return self._dense(header, unpack_names(body))
            case Kind.PIN:
                self.close()
                self._pinned = self._replica.view()
                return nullcontext([_headed(header, STATE.pack(*_state(self._pinned)))])
            case Kind.UNPIN:
                self.close()
                return nullcontext([_headed(header, b"")])
            case Kind.INFO:
                return nullcontext([_headed(header, json.dumps(info(self._replica)).encode())])
        raise BadMessage(f"a request of kind {header.kind}; there are {', '.join(f'{k.name} {k}' for k in Kind)}")

    @contextmanager
    def _view(self) -> Iterator[View]:
        if self._pinned is not None:
            yield self._pinned
            return
        with self._replica.view() as view:
            yield view

    @contextmanager
    def _lookup(self, header: Header, parts: Sequence[Part]) -> Iterator[Sequence[Bytes]]:
        versions = bool(header.flags & Flag.VERSIONS)
        shape = RowsShape([(len(part.ids_n), self._dim(part.table)) for part in parts], versions=versions)
        if shape.nbytes > self._limits.answer_bytes:
            raise TooLarge(f"an answer of {shape.nbytes} bytes; at most {self._limits.answer_bytes} go: ask in parts")
        with self._room.take(HEADER.size + shape.nbytes):
            began = time.perf_counter()
            answer_b = np.empty(HEADER.size + shape.nbytes, dtype=np.uint8)
            body_b = answer_b[HEADER.size :]
            with self._view() as view:
                state = _state(view)
                found = [
                    view.lookup_versions(part.table, part.ids_n, rows_nd)[1]
                    for part, rows_nd in zip(parts, shape.rows(body_b), strict=True)
                ]
            for versions_n, found_n in zip(shape.versions(body_b) or (), found, strict=False):
                versions_n[:] = found_n
            del parts
            front = pack_header(shape.nbytes, header.kind + ANSWER, header.request, header.flags & Flag.VERSIONS)
            front += shape.front(state)
            answer_b[: len(front)] = np.frombuffer(front, dtype=np.uint8)
            self._watch.looked_up(sum(rows for rows, _ in shape.shapes), time.perf_counter() - began)
            yield [answer_b.data]

    @contextmanager
    def _dense(self, header: Header, names: Sequence[str] | None) -> Iterator[Sequence[Bytes]]:
        with self._view() as view:
            state, arrays = _state(view), view.dense()
        if names is not None:
            unknown = [name for name in names if name not in arrays]
            if unknown:
                raise BadMessage(f"no dense array {unknown[0]!r}; there are {', '.join(arrays) or 'none'}")
            arrays = {name: arrays[name] for name in names}
        pieces = pack_dense(state, arrays)
        nbytes = sum(len(piece) for piece in pieces)
        if nbytes > self._limits.answer_bytes:
            raise TooLarge(
                f"dense weights of {nbytes} bytes; at most {self._limits.answer_bytes} go: pin, and ask for some names"
            )
        with self._room.take(nbytes):
            yield [pack_header(nbytes, header.kind + ANSWER, header.request), *pieces]

    def _dim(self, table: str) -> int:
        shapes = self._replica.table_shapes
        if table not in shapes:
            raise UnknownTable(table, shapes)
        return shapes[table][1]


def info(replica: Replica) -> dict[str, Any]:
    """What the service says of itself: ``report.figures``, with rows and dim of each table."""
    shapes = replica.table_shapes
    tables = {name: {"rows": rows, "dim": dim} for name, (rows, dim) in shapes.items()}
    return figures(replica) | {"tables": tables}


def _headed(header: Header, body: bytes) -> bytes:
    return pack_header(len(body), header.kind + ANSWER, header.request) + body


def _state(view: View) -> State:
    return State(view.step, *view.position, view.clock_ns)


def _code(error: Exception) -> Code:
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), Code.FAILED)
