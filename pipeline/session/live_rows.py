"""Rows of a run that is going on: a socket in its directory, for the run's owner alone.

One request a connection. Both ways: a length, 4 bytes little endian, then that many bytes of msgpack.

    request   {table: str, ids: int64s, little endian, one behind the other}
    answer    {step, updated: a byte each, versions: int64 pairs, columns: [{name, dtype, width, data}], meta: likewise} or {error}
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np

from pipeline.session.errors import NotAnswering
from pipeline.store import FetchedRows, Store
from pipeline.store.fetched import WEIGHT

NAME: Final = "rows.sock"
LENGTH: Final = struct.Struct("<I")
MOST_REQUEST_BYTES: Final = 8 << 20
MOST_ANSWER_BYTES: Final = 256 << 20
TIMEOUT_S: Final = 30.0
PEER: Final = struct.Struct("3i")


class LiveRows:
    """Answers, on a thread of its own and one after the other, from ``start`` to ``close``. Training does not wait for it."""

    def __init__(self, store: Store, run_dir: Path) -> None:
        self._store, self._dir = store, run_dir
        self._stack = ExitStack()
        self._thread = threading.Thread(target=self._serve, name="live-rows", daemon=True)
        self._ended = threading.Event()
        self._connection: socket.socket | None = None

    def start(self) -> None:
        """Bind the socket, in place of one that a process that died has left. Raises OSError."""
        path = self._stack.enter_context(_short_path(self._dir))
        Path(path).unlink(missing_ok=True)
        self._listening = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self._listening.bind(path)
        self._stack.callback(Path(path).unlink, missing_ok=True)
        os.chmod(path, 0o600)
        self._listening.listen(4)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and remove the socket. May be called twice, and before ``start``."""
        if self._thread.is_alive():
            self._ended.set()
            for open_socket in (self._listening, self._connection):
                with suppress(OSError):  # it closed by itself
                    if open_socket is not None:
                        open_socket.shutdown(socket.SHUT_RDWR)
            self._thread.join()
        self._stack.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                if self._ended.wait(0.1):  # else out of files for a moment: whoever asks waits
                    return
                continue
            with connection:
                self._connection = connection
                try:
                    connection.settimeout(TIMEOUT_S)
                    if _peer(connection) in (os.geteuid(), 0):
                        _send(connection, self._answer(_receive(connection, MOST_REQUEST_BYTES)))
                except (OSError, ValueError):
                    continue  # who asked is gone, or speaks another language

    def _answer(self, request: Any) -> Mapping[str, Any]:
        """Raises ValueError for what is no request."""
        asked = request if isinstance(request, dict) else {}
        if not isinstance(asked.get("table"), str) or not isinstance(asked.get("ids"), bytes):
            raise ValueError("no request")
        table, ids_n = asked["table"], np.frombuffer(asked["ids"], dtype="<i8")
        try:
            most = MOST_ANSWER_BYTES // (self._store.spec_of(table).layout.row_bytes + 64)
            if ids_n.shape[0] > most:
                return {"error": f"a live run gives at most {most} rows of {table!r} at once: ask in parts"}
            return _described(self._store.fetch_rows(table, ids_n))
        except Exception as error:  # whatever a tier raised is told to who asked; others go on being answered
            return {"error": f"{error}" or type(error).__name__}


def fetch_live(run_dir: Path, table: str, ids_n: Any) -> FetchedRows:
    """``Store.fetch_rows`` of the run that is going on in ``run_dir``. Raises NotAnswering."""
    most = MOST_REQUEST_BYTES // 8 - 64
    if len(ids_n) > most:
        raise NotAnswering(f"the run in {run_dir} answers for at most {most} rows at once: ask in parts")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        try:
            with _short_path(run_dir) as path:
                connection.connect(path)
            _send(connection, {"table": table, "ids": np.ascontiguousarray(ids_n, dtype="<i8").tobytes()})
            answer = _receive(connection, MOST_ANSWER_BYTES)
        except (OSError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise NotAnswering(
                f"the run in {run_dir} does not answer ({why}): it is about to begin or to end, ask again"
            ) from None
    if "error" in answer:
        raise NotAnswering(f"the run in {run_dir}: {answer['error']}")
    columns, meta = ({one["name"]: _values(one) for one in answer[part]} for part in ("columns", "meta"))
    weights_nd = columns.pop(WEIGHT)
    versions_n2 = np.frombuffer(answer["versions"], dtype="<i8").reshape(-1, 2)
    updated_n = np.frombuffer(answer["updated"], dtype=np.bool_)
    return FetchedRows(table, answer["step"], ids_n, weights_nd, columns, versions_n2, updated_n, meta)


def _described(rows: FetchedRows) -> Mapping[str, Any]:
    return {
        "step": rows.step,
        "updated": rows.updated_n.tobytes(),
        "versions": rows.versions_n2.astype("<i8").tobytes(),
        "columns": _columns({WEIGHT: rows.weights_nd, **rows.states}),
        "meta": _columns(rows.meta),
    }


def _columns(named: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [
        {"name": name, "dtype": str(values.dtype), "width": values.shape[1], "data": values.tobytes()}
        for name, values in named.items()
    ]


def _values(column: Mapping[str, Any]) -> Any:
    return np.frombuffer(column["data"], dtype=column["dtype"]).reshape(-1, column["width"])


@contextmanager
def _short_path(run_dir: Path) -> Iterator[str]:
    """A path of the socket that is short enough for one (108 bytes), however long that of the directory is."""
    directory = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{NAME}"
    finally:
        os.close(directory)


def _peer(connection: socket.socket) -> int:
    """The user at the other end."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
    return int(PEER.unpack(packed)[1])


def _send(connection: socket.socket, said: Mapping[str, Any]) -> None:
    data = msgpack.packb(said)
    connection.sendall(LENGTH.pack(len(data)))
    connection.sendall(data)


def _receive(connection: socket.socket, most: int) -> Any:
    """Raises ValueError for what is no message of at most ``most`` bytes, OSError when the other end is gone."""
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    if length > most:
        raise ValueError(f"a message of {length} bytes; at most {most} are read")
    return msgpack.unpackb(_exactly(connection, length))


def _exactly(connection: socket.socket, count: int) -> bytearray:
    """``count`` bytes, for which room is made as they come."""
    data = bytearray()
    while len(data) < count:
        part = connection.recv(min(count - len(data), 1 << 20))
        if not part:
            raise ConnectionError("the other end closed the connection")
        data += part
    return data
