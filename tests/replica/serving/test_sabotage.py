"""The promises of a served replica in one walk, and that the walk notices each sabotage."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from pipeline.replica import Replica, View
from pipeline.replica.serving.errors import ServingError, SocketTaken, TooLarge
from pipeline.replica.serving.lookup_server import LookupServer, ServerOptions
from pipeline.replica.serving.messages import receive_body, receive_header
from pipeline.replica.serving.protocol import Kind, Limits, Part, pack_header, pack_lookup
from pipeline.replica.serving.service import Service
from pipeline.replica.serving.socket_place import connect
from tests.replica.serving.served import Counted, Served
from tests.replica.trainer import MemoryTransport
from tests.sabotage.serving import SABOTAGES

WAIT_S = 60.0
SABOTAGED_S = 2.0
"""For what then never comes."""


def walk(directory: Path) -> None:
    options = ServerOptions(limits=Limits(request_bytes=10_000), client_s=0.2, drain_s=20.0)
    with Served(directory, options) as served:
        for look in (place_is_one_servers, pin_is_kept_and_ends, lengths_are_bounded, slow_client_is_let_go):
            served.advance()
            look(served)
        what_came_is_answered(served)
    not_ready_before_a_cut(directory)


def place_is_one_servers(served: Served) -> None:
    assert stat.S_IMODE(os.stat(served.path).st_mode) == 0o600
    second = LookupServer(served.replica, served.path, Counted(), ServerOptions())
    try:
        with pytest.raises(SocketTaken):
            second.start()
    finally:
        second.close()


def pin_is_kept_and_ends(served: Served) -> None:
    with served.client(WAIT_S) as client, client.view() as view:
        before = view.lookup("item", [1, 2])
        served.advance()
        assert view.lookup("item", [1, 2]).tobytes() == before.tobytes()
        client.close()
    assert soon(lambda: served.replica.pinned_views == 0)
    assert soon(lambda: served.server.answers.used_bytes == 0)


def lengths_are_bounded(served: Served) -> None:
    with connect(served.path, WAIT_S) as connection:
        connection.sendall(pack_header(10_001, Kind.LOOKUP, 1))
        header = receive_header(connection, 1000, WAIT_S, WAIT_S)
        assert header is not None
        assert header.kind == Kind.ERROR


def slow_client_is_let_go(served: Served) -> None:
    with connect(served.path, WAIT_S) as connection:
        connection.sendall(pack_header(100, Kind.LOOKUP, 1))
        assert connection.recv(1) == b""


def what_came_is_answered(served: Served) -> None:
    """Requests are sent until the server takes no more; none of them is answered before that."""
    body, view, gate = pack_lookup([Part("item", np.arange(9))]), served.replica.view, threading.Event()

    def gated() -> View:
        gate.wait(WAIT_S)
        return view()

    served.replica.view = gated  # type: ignore[method-assign]
    with connect(served.path, WAIT_S) as connection:
        connection.sendall(pack_header(len(body), Kind.LOOKUP, 0) + body)
        sent, pause = 1, threading.Event()
        closing = threading.Thread(target=served.server.close)
        closing.start()
        try:
            with suppress(BrokenPipeError):
                while not pause.wait(0.01):
                    connection.sendall(pack_header(len(body), Kind.LOOKUP, sent) + body)
                    sent += 1
            gate.set()
            for number in range(sent):
                header = receive_header(connection, 1 << 20, WAIT_S, WAIT_S)
                assert header is not None
                assert header.request == number
                receive_body(connection, header.length, WAIT_S)
        finally:
            gate.set()
            connection.close()
            closing.join()


def not_ready_before_a_cut(directory: Path) -> None:
    with (
        Replica(MemoryTransport()) as replica,  # type: ignore[arg-type]
        Service(replica, "nothing", None, str(directory / "other.sock"), 10.0) as service,
    ):
        assert service.why_not_ready() is not None


def soon(condition: object) -> bool:
    assert callable(condition)
    pause = threading.Event()
    for _ in range(int(WAIT_S / 0.01)):
        if condition():
            return True
        pause.wait(0.01)
    return False


def test_the_walk_passes(tmp_path: Path) -> None:
    walk(tmp_path)


@pytest.mark.parametrize("name", SABOTAGES)
def test_each_sabotage_is_noticed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "WAIT_S", SABOTAGED_S)
    noticed = (AssertionError, ServingError, TooLarge, OSError, pytest.fail.Exception)
    with SABOTAGES[name](), pytest.raises(noticed):
        walk(tmp_path)
