"""Whole messages over a socket: both ends use it. What does not come in time is given up."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.replica.serving.protocol import HEADER, Bytes, Header, unpack_header

ByteArray = npt.NDArray[np.uint8]


def send(connection: socket.socket, pieces: Iterable[Bytes], timeout_s: float | None) -> None:
    """All pieces, within ``timeout_s``. Raises OSError, TimeoutError among them."""
    deadline = _Deadline(timeout_s)
    for piece in pieces:
        connection.settimeout(deadline.left_s())
        connection.sendall(piece)


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
