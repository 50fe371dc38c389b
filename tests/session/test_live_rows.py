"""Rows of a live run over its socket: what is answered, to whom, and what a bad peer cannot do."""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgpack
import numpy as np
import pytest

from pipeline.rowlog import RowLogError
from pipeline.session import live_rows
from pipeline.session.errors import NotAnswering
from pipeline.session.live_rows import LiveRows, fetch_live
from pipeline.store import Store
from tests.e2e.jobs import RAGGED, run_job
from tests.e2e.patience import until
from tests.store.jobs import batch_of, make_store, train_step, whole_grads

DEADLINE_S = 60


@pytest.fixture
def store() -> Iterator[Store]:
    made = make_store(fetch_rows=1000)
    batch = batch_of([[[1, 2, 3]], [[]], [[]], [[]]])
    train_step(made, 1, batch, whole_grads(np.random.default_rng(), batch))
    yield made
    made.close()


@pytest.fixture
def run_dir(tmp_path: Path, store: Store) -> Iterator[Path]:
    """Deeper than a socket's path may be long."""
    directory = tmp_path / ("deep" * 40)
    directory.mkdir()
    live = LiveRows(store, directory)
    live.start()
    yield directory
    live.close()
    live.close()
    assert not (directory / "rows.sock").exists()


def asked(directory: Path, sent: bytes, then_close: bool = False) -> bytes:
    """What comes back for raw bytes, up to the end."""
    got = bytearray()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
        live_rows._short_path(directory) as path,
        suppress(ConnectionError),  # what it would not read, it leaves
    ):
        connection.settimeout(60)
        connection.connect(path)
        connection.sendall(sent)
        if not then_close:
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                got += part
    return bytes(got)


def message(said: Any) -> bytes:
    packed: bytes = msgpack.packb(said)
    return struct.pack("<I", len(packed)) + packed


def test_it_answers_what_the_store_has(run_dir: Path, store: Store) -> None:
    ids_n = np.array([3, 9, 3, -1])
    there, here = fetch_live(run_dir, "users", ids_n), store.fetch_rows("users", ids_n)
    assert (there.table, there.step) == ("users", 1)
    assert there.updated_n.tolist() == [True, False, True, False]
    for name in ("ids_n", "weights_nd", "versions_n2"):
        assert np.array_equal(getattr(there, name), getattr(here, name))
    assert fetch_live(run_dir, "items", np.empty(0, np.int64)).weights_nd.shape == (0, 8)


def test_only_the_owner_may_ask(run_dir: Path) -> None:
    assert stat.S_IMODE((run_dir / "rows.sock").stat().st_mode) == 0o600
    with (
        patch.object(live_rows, "_peer", return_value=os.geteuid() + 12345),
        pytest.raises(NotAnswering, match=r"does not answer \(.*(closed|reset|pipe)"),
    ):
        fetch_live(run_dir, "users", np.array([1]))


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x01",
        struct.pack("<I", 2**32 - 1) + b"x" * 100,
        struct.pack("<I", 4) + b"\xc1\xc1\xc1\xc1",
        message([1, 2]),
        message({"table": 7, "ids": b""}),
        message({"table": "users"}),
        message({"table": "users", "ids": b"1234567"}),
        message({"table": "users", "ids": [1]}),
    ],
)
def test_who_speaks_another_language_gets_no_answer_and_does_no_harm(run_dir: Path, sent: bytes) -> None:
    assert asked(run_dir, sent) == b""
    assert asked(run_dir, sent, then_close=True) == b""
    assert fetch_live(run_dir, "users", np.array([1])).updated_n.tolist() == [True]


def test_a_request_longer_than_any_is_not_read(run_dir: Path) -> None:
    request = message({"table": "users", "ids": bytes(80)})
    assert asked(run_dir, request) != b""
    with patch.object(live_rows, "MOST_REQUEST_BYTES", 80):
        assert asked(run_dir, request) == b""


def test_errors_of_the_store_are_told(run_dir: Path) -> None:
    with pytest.raises(NotAnswering, match="no table 'nobody'; the tables are"):
        fetch_live(run_dir, "nobody", np.array([1]))
    with pytest.raises(NotAnswering, match=r"1001 rows were asked for, and store\.fetch_rows allows 1000"):
        fetch_live(run_dir, "users", np.arange(1001))
    with pytest.raises(NotAnswering, match="at most 1048512 rows at once: ask in parts"):
        fetch_live(run_dir, "users", np.zeros(2_000_000, np.int64))
    with (
        patch.object(live_rows, "MOST_ANSWER_BYTES", 1600),
        pytest.raises(NotAnswering, match="gives at most 20 rows of 'users' at once"),
    ):
        fetch_live(run_dir, "users", np.arange(100))


def test_whatever_a_tier_raises_is_told_and_others_are_answered(run_dir: Path, store: Store) -> None:
    with (
        patch.object(store, "fetch_rows", side_effect=RowLogError("a read of 4096 bytes failed")),
        pytest.raises(NotAnswering, match="a read of 4096 bytes failed"),
    ):
        fetch_live(run_dir, "users", np.array([1]))
    assert fetch_live(run_dir, "users", np.array([1])).step == 1


def test_noise_does_no_harm(run_dir: Path) -> None:
    random = np.random.default_rng()
    for length in random.integers(0, 60, 100).tolist():
        asked(run_dir, struct.pack("<I", length) + random.bytes(length))
    assert fetch_live(run_dir, "users", np.array([1])).step == 1


def test_a_silent_peer_delays_neither_the_end_nor_others_for_good(run_dir: Path, store: Store, tmp_path: Path) -> None:
    other = LiveRows(store, tmp_path)
    other.start()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent,
        live_rows._short_path(tmp_path) as path,
        patch.object(live_rows, "TIMEOUT_S", 4 * DEADLINE_S),
    ):
        silent.connect(path)
        silent.sendall(b"\x10")
        until(lambda: other._connection is not None)
        with ThreadPoolExecutor(1) as closer:
            closer.submit(other.close).result(DEADLINE_S)
        assert silent.recv(1) == b""
    with patch.object(live_rows, "TIMEOUT_S", 0.05):
        assert asked_late(run_dir) == b""
    assert fetch_live(run_dir, "users", np.array([1])).step == 1


def asked_late(directory: Path) -> bytes:
    """Waits until the other end has given up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent, live_rows._short_path(directory) as path:
        silent.connect(path)
        return silent.recv(1)


def test_what_a_process_that_died_has_left_is_replaced(tmp_path: Path, store: Store) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / "rows.sock"))
    with pytest.raises(NotAnswering, match="about to begin or to end"):
        fetch_live(tmp_path, "users", np.array([1]))
    live = LiveRows(store, tmp_path)
    live.start()
    assert fetch_live(tmp_path, "users", np.array([1])).step == 1
    live.close()


def test_closing_what_never_started(tmp_path: Path, store: Store) -> None:
    LiveRows(store, tmp_path).close()


def test_a_run_whose_disk_has_no_sockets_says_so_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_self: LiveRows) -> None:
        raise PermissionError(1, "Operation not permitted")

    with patch.object(LiveRows, "start", refuse):
        job = run_job(tmp_path / "run", RAGGED, "run.steps=5")
    assert job.summary["steps"] == 5
    assert "`rows` will not be answered while this run goes on: [Errno 1]" in capsys.readouterr().err
