"""Whole messages over a socket: both ends use it. What does not come in time is given up."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.replica.serving.protocol import HEADER, Bytes, Header, unpack_header

ByteArray = npt.NDArray[np.uint8]


def send(
    connection: socket.socket,
    pieces: Iterable[Bytes],
    timeout_s: float | None,
    meanwhile: Callable[[], None] | None = None,
) -> None:
    """All pieces, within ``timeout_s``. Raises OSError, TimeoutError among them.

    ``meanwhile`` is called, once for each time, when the other end takes no more and has sent something: it must read that.
    """
    deadline = _Deadline(timeout_s)
    for piece in pieces:
        if meanwhile is None:
            connection.settimeout(deadline.left_s())
            connection.sendall(piece)
        else:
            _send_and_read(connection, memoryview(piece), deadline, meanwhile)


def _send_and_read(connection: socket.socket, piece: Any, deadline: _Deadline, meanwhile: Callable[[], None]) -> None:
    while len(piece):
        connection.settimeout(0.0)
        try:
            piece = piece[connection.send(piece) :]
        except BlockingIOError:
            if _wait(connection, deadline.left_s()) & select.POLLIN:
                meanwhile()


def _wait(connection: socket.socket, timeout_s: float | None) -> int:
    """Until it takes something or has something; which of it. Raises TimeoutError."""
    poll = select.poll()
    poll.register(connection, select.POLLIN | select.POLLOUT)
    found = poll.poll(None if timeout_s is None else timeout_s * 1000)
    if not found:
        raise TimeoutError("timed out")
    return found[0][1]


def receive_header(
    connection: socket.socket, most: int, idle_s: float | None, timeout_s: float | None
) -> Header | None:
    """The next header: its first byte within ``idle_s``, the others within ``timeout_s`` of that; None where the other end has
    closed the connection between two messages. Raises OSError, BadMessage, TooLarge.
    """
    connection.settimeout(idle_s)
    head_b = np.empty(HEADER.size, dtype=np.uint8)
    came = connection.recv_into(head_b.data)
    if not came:
        return None
    _fill(connection, head_b.data[came:], timeout_s)
    return unpack_header(head_b.data, most)


def receive_body(connection: socket.socket, nbytes: int, timeout_s: float | None) -> ByteArray:
    """``nbytes`` bytes, within ``timeout_s``. Raises OSError."""
    body_b = np.empty(nbytes, dtype=np.uint8)
    _fill(connection, body_b.data, timeout_s)
    return body_b


def _fill(connection: socket.socket, room: Any, timeout_s: float | None) -> None:
    deadline = _Deadline(timeout_s)
    while len(room):
        connection.settimeout(deadline.left_s())
        came = connection.recv_into(room)
        if not came:
            raise ConnectionResetError("the other end closed the connection in the middle of a message")
        room = room[came:]


class _Deadline:
    def __init__(self, timeout_s: float | None) -> None:
        self._at = None if timeout_s is None else time.monotonic() + timeout_s

    def left_s(self) -> float | None:
        """Raises TimeoutError when nothing is left."""
        if self._at is None:
            return None
        left_s = self._at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        return left_s
