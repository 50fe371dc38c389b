"""What is value-exact over any transport is so over a real broker: inherit the class and name the broker."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from pipeline import Replica, RowStreamer
from pipeline.wire import Transport
from pipeline.wire.opening import open_transport, parse_options
from tests.contracts.streamed import StreamedContract
from tests.support.servers import SERVERS, Server

NAMES = (f"stream{k}" for k in itertools.count())


class BrokerStreamContract(StreamedContract):
    kind: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        pytest.importorskip(cls.kind, reason=f"the client of {cls.kind} is not installed")
        with SERVERS[cls.kind](tmp_path_factory.mktemp(cls.kind)) as running:
            yield running

    @pytest.fixture
    def keys(self, server: Server) -> Mapping[str, Any]:
        return {"transport": {"kind": self.kind, "url": server.url, "stream": next(NAMES)}}

    @pytest.fixture
    def opener(self, keys: Mapping[str, Any]) -> Callable[[], Transport]:
        return lambda: open_transport(parse_options(keys["transport"]))

    def test_a_loop_streams_to_a_url_and_a_replica_reads_there(self, server: Server) -> None:
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
