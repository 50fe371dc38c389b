"""Value-exact over a real redis server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from pipeline.wire import Transport
from pipeline.wire.opening import open_transport, parse_options
from tests.contracts.streamed import StreamedLoops
from tests.support.servers import RedisServer

pytest.importorskip("redis", reason="the client of redis is not installed")

NAMES = (f"stream{k}" for k in itertools.count())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


class TestRedisStream(StreamedLoops):
    @pytest.fixture
    def keys(self, server: Any) -> Mapping[str, Any]:
        return {"transport": {"kind": "redis", "url": server.url, "stream": next(NAMES)}}

    @pytest.fixture
    def opener(self, keys: Mapping[str, Any]) -> Callable[[], Transport]:
        return lambda: open_transport(parse_options(keys["transport"]))
