"""Value-exact over a real nats server."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from pipeline import Replica, RowStreamer
from pipeline.wire import Transport
from pipeline.wire.opening import open_transport, parse_options
from tests.contracts.streamed import StreamedContract
from tests.support.servers import NatsServer

pytest.importorskip("nats", reason="the client of nats is not installed")

NAMES = (f"stream{k}" for k in itertools.count())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with NatsServer(tmp_path_factory.mktemp("nats")) as running:
        yield running


class TestNatsStream(StreamedContract):
    @pytest.fixture
    def keys(self, server: Any) -> Mapping[str, Any]:
        return {"transport": {"kind": "nats", "url": server.url, "stream": next(NAMES)}}

    @pytest.fixture
    def opener(self, keys: Mapping[str, Any]) -> Callable[[], Transport]:
        return lambda: open_transport(parse_options(keys["transport"]))


def test_a_loop_streams_to_a_url_and_a_replica_reads_there(server: Any) -> None:
    url, rows = f"{server.url}/{next(NAMES)}", np.arange(600, dtype=np.float32).reshape(300, 2)
    with RowStreamer({"item": {"dim": 2}}, url, shards=2) as streamer:
        for step in (1, 2, 3):
            streamer.push("item", np.arange(300), rows * step)
            streamer.end_step(step)
    with Replica(url) as replica:
        replica.follow(threading.Event(), until_end=True)
        with replica.view() as view:
            assert view.step == 3
            assert view.lookup("item", np.arange(300)).tobytes() == (rows * 3).tobytes()
