"""The redis transport keeps the contract against a real server, and what is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.wire import NotDurable
from tests.contracts.broker import BrokerContract
from tests.contracts.broker_kind import BrokerKind, BrokerTransportContract
from tests.contracts.transport import HEADER
from tests.support.servers import RedisServer, Server

pytest.importorskip("redis", reason="the package redis is not installed")

import redis

from pipeline.wire.redis.broker import RedisBroker
from pipeline.wire.redis.options import RedisOptions

KIND = BrokerKind(
    RedisServer,
    RedisOptions,
    RedisBroker,
    small={"payload_bytes": 65536, "part_bytes": 4096, "read_bytes": 131072},
    small_parts={"part_bytes": 4096, "payload_bytes": 65536},
)


class TestRedisTransport(BrokerTransportContract):
    KIND = KIND


class TestRedisBroker(BrokerContract):
    KIND = KIND
    PING, PONG = b"PING\r\n", b"+PONG"

    def make_guarded(self, directory: Path) -> RedisServer:
        return RedisServer(
            directory, *["--user", "default", "off", "--user", "user", "on", ">correct", "~*", "&*", "+@all"]
        )

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
