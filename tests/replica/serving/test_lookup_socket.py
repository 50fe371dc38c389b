"""The lookup socket: whole cuts, in order, whatever others do."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from pipeline.replica import View
from pipeline.replica.client import ReplicaClient
from pipeline.replica.serving.errors import (
    NoSocketPath,
    RequestRefused,
    ServedTableUnknown,
    ServedViewExpired,
    ServiceBusy,
    SocketTaken,
    Unreachable,
)
from pipeline.replica.serving.lookup_server import LookupServer, ServerOptions
from pipeline.replica.serving.messages import receive_body, receive_header
from pipeline.replica.serving.protocol import (
    HEADER,
    VERSION,
    Code,
    Kind,
    Limits,
    Part,
    pack_header,
    pack_lookup,
    unpack_error,
)
from pipeline.replica.serving.socket_place import connect
from tests.e2e.patience import until
from tests.replica.serving.served import Counted, Served

ASKED = [1, 77, -(2**63), 2**63 - 1, 1, 0]


def test_a_lookup_gives_all_tables_as_they_stand_at_one_cut(tmp_path: Path) -> None:
    with Served(tmp_path) as served, served.client() as client:
        for _ in range(3):
            served.advance()
            rows = client.lookup({"item": ASKED, "user": ASKED[:3]}, versions=True)
            with served.replica.view() as view:
                for table, asked in (("item", ASKED), ("user", ASKED[:3])):
                    weights, versions = view.lookup_versions(table, asked)
                    assert rows[table].tobytes() == weights.tobytes()
                    assert rows.versions is not None
                    assert rows.versions[table].tolist() == versions.tolist()
            assert (rows.step, rows.position) == (served.trainer.step, tuple(served.trainer.previous))
        assert client.lookup({"user": []})["user"].shape == (0, 3)
        assert client.lookup({"user": [5]}).versions is None
        assert served.counted.rows == 3 * 9 + 1


def test_a_cut_that_comes_in_the_middle_of_a_lookup_is_in_none_of_its_tables(tmp_path: Path) -> None:
    with Served(tmp_path) as served, served.client() as client:
        served.advance()
        opened, view = [], served.replica.view

        def opened_and_advanced() -> View:
            opened.append(view())
            served.advance()
            return opened[-1]

        served.replica.view = opened_and_advanced  # type: ignore[method-assign]
        rows = client.lookup({"item": [1], "user": [1]}, versions=True)
        assert len(opened) == 1
        assert rows.versions is not None
        assert (rows.step, [versions[0] & (1 << 40) - 1 for versions in rows.versions.values()]) == (1, [1, 1])


def test_a_pinned_view_shows_one_cut_for_all_that_is_asked_through_it(tmp_path: Path) -> None:
    with Served(tmp_path) as served, served.client() as client:
        served.advance()
        with served.replica.view() as expected, client.view() as view:
            before = {table: expected.lookup(table, ASKED) for table in ("item", "user")}
            dense = dict(expected.dense())
            served.advance()
            served.advance()
            for table, weights in before.items():
                assert view.lookup(table, ASKED).tobytes() == weights.tobytes()
            found = view.dense()
            assert found.keys() == dense.keys() == {"w", "b"}
            assert all(found[name].tobytes() == dense[name].tobytes() for name in found)
            assert found["b"].dtype == np.int64
            assert (view.step, view.position) == (1, (1, 1))
            assert view.dense(["w"]).keys() == {"w"}
            with pytest.raises(ValueError, match="has a view open"), client.view():
                pass
        assert client.lookup({"item": [1]}).step == 3
        with client.view() as view:
            assert view.step == 3


def test_requests_sent_ahead_are_answered_in_order(tmp_path: Path) -> None:
    with Served(tmp_path) as served, served.client() as client:
        served.advance()
        asked = [[n, n + 1] for n in range(500)]
        with served.replica.view() as view:
            expected = [view.lookup("item", some).tobytes() for some in asked]
        found = [rows["item"].tobytes() for rows in client.lookups({"item": some} for some in asked)]
        assert found == expected
        large = [np.arange(20_000) + n for n in range(20)]  # far more than the kernel keeps of either side
        for ids, rows in zip(large, client.lookups({"item": ids} for ids in large), strict=True):
            with served.replica.view() as view:
                assert rows["item"].tobytes() == view.lookup("item", ids).tobytes()


def test_what_cannot_be_answered_gets_an_error_and_the_connection_goes_on(tmp_path: Path) -> None:
    options = ServerOptions(limits=Limits(request_bytes=100_000, answer_bytes=50_000))
    with Served(tmp_path, options) as served, served.client() as client:
        served.advance()
        with pytest.raises(ServedTableUnknown, match="did you mean 'item'"):
            client.lookup({"items": [1]})
        with pytest.raises(RequestRefused, match="an answer of 80048 bytes; at most 50000") as refused:
            client.lookup({"item": range(5000)})
        assert refused.value.code == Code.TOO_LARGE
        with pytest.raises(RequestRefused, match="no dense array 'v'; there are"):
            client.dense(["v"])
        kept = client._socket
        assert client.lookup({"item": [1]}).step == 1
        assert client._socket is kept
        assert served.counted.codes == [Code.UNKNOWN_TABLE, Code.TOO_LARGE, Code.BAD_REQUEST]


BAD_BODIES = [
    b"",
    b"\0" * 4,
    b"\xff" * 8,
    bytes(16),
    pack_lookup([Part("item", np.arange(3))])[:-1],
    pack_lookup([Part("item", np.arange(3))]) + b"\0",
    pack_lookup([Part("x" * 129, np.arange(3))]),
    pack_lookup([Part("item", np.arange(1))] * 257),
    pack_lookup([Part("item", np.arange(1))]).replace(b"item", b"\xff\xfe\xfd\xfc"),
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_a_body_that_is_none_gets_an_error_and_the_connection_goes_on(tmp_path: Path, body: bytes) -> None:
    with Served(tmp_path) as served:
        served.advance()
        with connect(served.path, 60) as connection:
            good = pack_lookup([Part("item", np.arange(3))])
            connection.sendall(pack_header(len(body), Kind.LOOKUP, 7) + body)
            assert answer(connection) == (Kind.ERROR, 7, Code.BAD_REQUEST)
            connection.sendall(pack_header(0, 99, 8))
            assert answer(connection) == (Kind.ERROR, 8, Code.BAD_REQUEST)
            connection.sendall(pack_header(len(good), Kind.LOOKUP, 9) + good)
            assert answer(connection) == (Kind.LOOKUP + 128, 9, None)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (HEADER.pack(2**32 - 1, Kind.LOOKUP, VERSION, 0, 1), Code.TOO_LARGE),
        (HEADER.pack(0, Kind.INFO, VERSION + 1, 0, 1), Code.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\n\r\n", Code.BAD_REQUEST),
    ],
)
def test_a_header_that_is_none_ends_its_connection_with_an_error_and_no_other(
    tmp_path: Path, header: bytes, code: Code
) -> None:
    with Served(tmp_path) as served, served.client() as client:
        served.advance()
        assert client.lookup({"item": [1]}).step == 1
        with connect(served.path, 60) as connection:
            connection.sendall(header)
            assert answer(connection) == (Kind.ERROR, 0, code)
            assert_ended(connection)
        assert client.lookup({"item": [1]}).step == 1


def test_mutated_messages_never_stop_the_server(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    good = pack_lookup([Part("item", np.arange(40)), Part("user", np.arange(3))])
    whole = np.frombuffer(pack_header(len(good), Kind.LOOKUP, 1) + good, np.uint8)
    with Served(tmp_path, ServerOptions(limits=Limits(request_bytes=1 << 20, answer_bytes=1 << 20))) as served:
        served.advance()
        for _ in range(300):
            mutated = whole.copy()
            places = rng.integers(0, len(mutated), rng.integers(1, 6))
            mutated[places] = rng.integers(0, 256, len(places))
            with connect(served.path, 60) as connection:
                connection.sendall(mutated[: rng.integers(1, len(mutated) + 1)].tobytes())
                connection.shutdown(socket.SHUT_WR)
                with suppress(ConnectionResetError):
                    while connection.recv(1 << 16):
                        pass
        with served.client() as client:
            assert client.lookup({"item": [1]}).step == 1
        until(lambda: served.server.num_connections == 0)
        assert (served.server.answers.used_bytes, served.server.requests.used_bytes) == (0, 0)


def test_a_client_that_takes_no_answer_holds_up_nobody_and_is_let_go(tmp_path: Path) -> None:
    options = ServerOptions(inflight_bytes=9 << 20, wait_s=0.05, client_s=1.0)
    with Served(tmp_path, options) as served, connect(served.path, 60) as slow, served.client() as client:
        served.advance()
        body = pack_lookup([Part("item", np.arange(500_000))])
        slow.sendall(pack_header(len(body), Kind.LOOKUP, 1) + body)
        until(lambda: served.server.answers.used_bytes > 8_000_000)
        served.advance()
        assert client.lookup({"item": [1]}).step == 2, "neither the applier nor another client waits"
        until(lambda: served.replica.pinned_views == 0)
        with pytest.raises(ServiceBusy, match="no room for"):
            client.lookup({"item": range(100_000)})
        until(lambda: served.server.answers.used_bytes == 0)
        assert client.lookup({"item": range(100_000)}).step == 2


def test_a_client_that_sends_half_a_request_is_let_go(tmp_path: Path) -> None:
    with Served(tmp_path, ServerOptions(client_s=0.1)) as served, connect(served.path, 60) as slow:
        slow.sendall(pack_header(1000, Kind.LOOKUP, 1) + b"\0")
        assert slow.recv(1) == b""
        until(lambda: served.server.num_connections == 0)
        assert served.server.requests.used_bytes == 0


def test_more_connections_than_there_may_be_are_told_so(tmp_path: Path) -> None:
    with Served(tmp_path, ServerOptions(connections=2)) as served:
        served.advance()
        with served.client() as one, served.client() as two, served.client() as three:
            assert [client.lookup({"item": [1]}).step for client in (one, two)] == [1, 1]
            with pytest.raises(ServiceBusy, match="2 connections are open"):
                three.lookup({"item": [1]})
            two.close()
            until(lambda: served.server.num_connections == 1)
            assert three.lookup({"item": [1]}).step == 1


def test_a_view_pinned_beyond_the_bound_ends_with_an_error_and_can_be_opened_again(tmp_path: Path) -> None:
    with Served(tmp_path, pinned_bytes=2000) as served, served.client() as client:
        served.advance()
        with client.view() as view:
            for _ in range(5):
                served.advance(rows=200)
            with pytest.raises(ServedViewExpired, match="pinned_bytes = 2000"):
                view.lookup("item", [1])
        with client.view() as view:
            assert view.step == 6
            view.lookup("item", [1])


def test_a_view_whose_client_is_gone_is_let_go(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.advance()
        with served.client() as client:
            view = client.view()
            view.__enter__()
            assert served.replica.pinned_views == 1
            client.close()
            until(lambda: served.replica.pinned_views == 0)


# The socket's file.


def test_the_socket_is_its_owners_alone_and_gone_afterwards(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        assert stat.S_IMODE(os.stat(served.path).st_mode) == 0o600
        assert stat.S_ISSOCK(os.stat(served.path).st_mode)
        assert sorted(os.listdir(tmp_path)) == ["replica.sock", "replica.sock.lock"]
    assert os.listdir(tmp_path) == ["replica.sock.lock"]


def test_a_dead_servers_socket_is_replaced_and_a_live_ones_is_not(tmp_path: Path) -> None:
    path = tmp_path / "replica.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    with Served(tmp_path) as served:
        served.advance()
        second = LookupServer(served.replica, str(path), Counted(), ServerOptions())
        with pytest.raises(SocketTaken, match="another server answers here"):
            second.start()
        second.close()
        with served.client() as client:
            assert client.lookup({"item": [1]}).step == 1


def test_of_two_servers_that_begin_at_once_one_is_refused(tmp_path: Path) -> None:
    """The other one holds the lock, and does not listen yet."""
    with open(tmp_path / "replica.sock.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SocketTaken), Served(tmp_path):
            pass
    with Served(tmp_path):
        pass


def test_somebody_elses_live_socket_and_a_file_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "replica.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(1)
        with pytest.raises(SocketTaken), Served(tmp_path):
            pass
    path.unlink()
    path.write_text("mine")
    with pytest.raises(NoSocketPath, match="a file that is no socket"), Served(tmp_path):
        pass
    assert path.read_text() == "mine"
    with pytest.raises(NoSocketPath, match="No such file or directory"), Served(tmp_path / "nowhere"):
        pass


def test_a_path_longer_than_a_sockets_name_may_be_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with Served(deep) as served, served.client() as client:
        served.advance()
        assert client.lookup({"item": [1]}).step == 1


# Ends.


def test_requests_that_have_come_are_answered_before_it_ends(tmp_path: Path) -> None:
    with Served(tmp_path) as served, connect(served.path, 60) as connection:
        served.advance()
        body = pack_lookup([Part("item", np.arange(300))])
        for number in range(8):
            connection.sendall(pack_header(len(body), Kind.LOOKUP, number) + body)
        until(lambda: served.counted.rows > 0)
        closing = served.server
        reading = [answer(connection)]
        closing.close()
        reading += [answer(connection) for _ in range(7)]
        assert [number for _, number, _ in reading] == list(range(8))
        assert connection.recv(1) == b""


def test_a_client_of_a_server_that_ended_gets_an_error_and_finds_the_next_one(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        client = served.client()
        served.advance()
        with client.view() as view:
            served.server.close()
            with pytest.raises(Unreachable, match="is `replica --serve` running there"):
                view.lookup("item", [1])
            with pytest.raises(Unreachable, match="No such file"):
                client.lookup({"item": [1]})
    with Served(tmp_path) as served:
        served.advance()
        assert client.lookup({"item": [1]}).step == 1
        with pytest.raises(Unreachable, match="open another view"):
            view.lookup("item", [1])
        client.close()


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "replica.sock"))
        silent.listen(1)
        with pytest.raises(Unreachable, match="timed out"):
            ReplicaClient(tmp_path / "replica.sock", timeout_s=0.05).lookup({"item": [1]})


def test_answers_that_nobody_read_are_not_taken_for_later_ones(tmp_path: Path) -> None:
    with Served(tmp_path) as served, served.client() as client:
        served.advance()
        for rows in client.lookups({"item": [n]} for n in range(10)):
            assert rows.step == 1
            break
        with served.replica.view() as view:
            assert client.lookup({"item": [15]})["item"].tobytes() == view.lookup("item", [15]).tobytes()
        with pytest.raises(ServedTableUnknown):
            list(client.lookups([{"item": [1]}, {"none": [1]}, {"item": [2]}]))
        assert client.lookup({"item": [15]}).step == 1


def test_a_client_tells_what_the_service_is(tmp_path: Path) -> None:
    with Served(tmp_path) as served, served.client() as client:
        served.advance()
        told = client.info()
        assert told["tables"] == {"item": {"rows": 20, "dim": 4}, "user": {"rows": 3, "dim": 3}}
        assert (told["step"], told["position"]) == (1, [1, 1])


def test_ids_that_are_none_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    client = ReplicaClient(tmp_path / "nobody")
    with pytest.raises(TypeError, match="int64"):
        client.lookup({"item": [0.5]})
    with pytest.raises(ValueError, match="one-dimensional"):
        client.lookup({"item": [[1]]})


def assert_ended(connection: socket.socket) -> None:
    """The other end has closed it, with or without having read all that was sent."""
    with suppress(ConnectionResetError):
        assert connection.recv(1) == b""


def answer(connection: socket.socket) -> tuple[int, int, Code | None]:
    """Kind, request and, of an error, its code."""
    header = receive_header(connection, 1 << 30, 60, 60)
    assert header is not None
    body = receive_body(connection, header.length, 60)
    return header.kind, header.request, Code(unpack_error(body.data)[0]) if header.kind == Kind.ERROR else None
