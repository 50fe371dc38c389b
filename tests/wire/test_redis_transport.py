"""The redis transport keeps the contract against a real server, and what is its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.wire import NotDurable, Transport
from tests.contracts.broker import BrokerContract
from tests.contracts.transport import HEADER, TransportContract
from tests.support.servers import RedisServer, Server

pytest.importorskip("redis", reason="the package redis is not installed")

import redis

from pipeline.wire.broker.broker import Link
from pipeline.wire.broker.transport import BrokerTransport
from pipeline.wire.redis.broker import RedisBroker
from pipeline.wire.redis.options import RedisOptions

Opener = Callable[[], Transport]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        assert isinstance(running, RedisServer)
        yield running


NAMES = (f"stream{k}" for k in itertools.count())


class TestRedisTransport(TransportContract):
    fences = True

    @pytest.fixture
    def opener(self, server: RedisServer) -> Iterator[Opener]:
        options = RedisOptions(
            url=server.url, stream=next(NAMES), payload_bytes=65536, part_bytes=4096, read_bytes=131072
        )
        opened: list[BrokerTransport] = []

        def open_one() -> BrokerTransport:
            opened.append(BrokerTransport(RedisBroker(options), options))
            return opened[-1]

        yield open_one
        for transport in opened:
            transport.close()


OPTIONS = {"part_bytes": 4096, "payload_bytes": 65536}


class TestRedisBroker(BrokerContract):
    PING, PONG = b"PING\r\n", b"+PONG"

    def make_link(self, url: str) -> Link:
        made = RedisOptions(url=url, stream="broken", timeout_s=5)
        return RedisBroker(made).link()

    def make_server(self, directory: Path) -> RedisServer:
        return RedisServer(directory)

    def make_guarded(self, directory: Path) -> RedisServer:
        return RedisServer(
            directory, *["--user", "default", "off", "--user", "user", "on", ">correct", "~*", "&*", "+@all"]
        )

    def make_transport(self, url: str, *, generation: int = 0, **options: Any) -> BrokerTransport:
        made = RedisOptions(**{"url": url, "stream": "broken", **OPTIONS, **options})
        return BrokerTransport(RedisBroker(made, generation), made)

    def fill(self, server: Server) -> None:
        with redis.Redis(port=server.port) as client:
            client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 400_000)

    def leave_no_room(self, server: Server) -> None:
        with redis.Redis(port=server.port) as client:
            client.config_set("maxmemory", 1)

    def make_room(self, server: Server) -> None:
        with redis.Redis(port=server.port) as client:
            client.config_set("maxmemory", 0)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (("appendonly", "no"), "no append-only file.*--appendonly yes, or say durability: any"),
        (("maxmemory-policy", "allkeys-lru"), "evicts any key"),
    ],
)
def test_a_redis_that_would_lose_what_it_acknowledged_is_refused(
    tmp_path: Path, setting: tuple[str, str], told: str
) -> None:
    with RedisServer(tmp_path / "server", "--maxmemory", "1gb") as server:
        with redis.Redis(port=server.port) as client:
            client.config_set(*setting)
        refused = TestRedisBroker().make_transport(server.url)
        with pytest.raises(NotDurable, match=told):
            refused.claim()
        refused.close()
        taken = TestRedisBroker().make_transport(server.url, durability="any")
        taken.claim()
        taken.begin(HEADER)
        taken.close()
