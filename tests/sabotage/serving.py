"""Small ways to break a served replica, each of which a test must notice."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

from pipeline.replica.serving import health, lookup_server, messages, service, socket_place
from pipeline.replica.serving.answers import Answers
from pipeline.replica.serving.lookup_server import LookupServer
from pipeline.replica.serving.protocol import unpack_header
from pipeline.replica.serving.room import Room


@contextmanager
def forget_the_pin() -> Iterator[None]:
    def newest(self: Answers) -> Any:
        return self._replica.view()

    with patch.object(Answers, "_view", newest):
        yield


@contextmanager
def keep_the_pin_of_a_client_that_is_gone() -> Iterator[None]:
    with patch.object(Answers, "close", lambda _: None):
        yield


@contextmanager
def take_requests_of_any_length() -> Iterator[None]:
    with patch.object(messages, "unpack_header", lambda data, _: unpack_header(data, 2**32)):
        yield


@contextmanager
def give_no_room_back() -> Iterator[None]:
    @contextmanager
    def take(self: Room, nbytes: int) -> Iterator[None]:
        self._used += nbytes
        yield

    with patch.object(Room, "take", take):
        yield


@contextmanager
def take_a_live_servers_place() -> Iterator[None]:
    with (
        patch.object(socket_place, "_lock", lambda _: nullcontext()),
        patch.object(socket_place, "_check_free", lambda _: None),
    ):
        yield


@contextmanager
def let_everybody_connect() -> Iterator[None]:
    with patch.object(os, "chmod", lambda *_: None):
        yield


@contextmanager
def end_without_answering() -> Iterator[None]:
    whole = LookupServer._end

    def at_once(self: LookupServer, how: int, deadline: float | None) -> None:
        del how
        whole(self, socket.SHUT_RDWR, deadline)

    with patch.object(LookupServer, "_end", at_once):
        yield


@contextmanager
def wait_for_a_slow_client_for_ever() -> Iterator[None]:
    whole = messages.receive_body

    def patient(connection: Any, nbytes: int, timeout_s: float | None) -> Any:
        del timeout_s
        return whole(connection, nbytes, 600.0)

    with patch.object(lookup_server, "receive_body", patient):
        yield


@contextmanager
def say_ready_whatever_is() -> Iterator[None]:
    with (
        patch.object(service, "why_not_ready", lambda *_: None),
        patch.object(health, "why_not_ready", lambda *_: None),
    ):
        yield


SABOTAGES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    sabotage.__name__: sabotage
    for sabotage in (
        forget_the_pin,
        keep_the_pin_of_a_client_that_is_gone,
        take_requests_of_any_length,
        give_no_room_back,
        take_a_live_servers_place,
        let_everybody_connect,
        end_without_answering,
        wait_for_a_slow_client_for_ever,
        say_ready_whatever_is,
    )
}
