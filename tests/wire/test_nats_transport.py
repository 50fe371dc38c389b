"""The nats transport keeps the contract against a real server, and what is its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.wire import BrokerRefuses, BrokerUnreachable, NotDurable, StreamReplaced
from tests.contracts.broker import BrokerContract
from tests.contracts.broker_kind import BrokerKind, BrokerTransportContract
from tests.contracts.transport import HEADER, Reading, frame
from tests.support.servers import NatsServer, Server

pytest.importorskip("nats", reason="the package nats-py is not installed")

import nats
from nats.aio.msg import Msg
from nats.js.api import StorageType

from pipeline.wire.nats.broker import NatsBroker
from pipeline.wire.nats.options import NatsOptions
from pipeline.wire.nats.reader import NatsReader

KIND = BrokerKind(
    NatsServer,
    NatsOptions,
    NatsBroker,
    small={"part_bytes": 4096, "read_bytes": 4096},
    small_parts={"part_bytes": 4096, "read_bytes": 65536},
)


class TestNatsTransport(BrokerTransportContract):
    KIND = KIND


class TestNatsBroker(BrokerContract):
    KIND = KIND
    PING, PONG = b"PING\r\n", b"PONG"

    def make_guarded(self, directory: Path) -> NatsServer:
        server = NatsServer(directory)
        server.configure('authorization: {user: "user", password: "correct"}')
        return server

    def fill(self, server: Server) -> None:
        limit_stream(server.url, 500_000)

    def make_room(self, server: Server) -> None:
        limit_stream(server.url, 10_000_000)


def limit_stream(url: str, room_bytes: int, stream: str = "broken") -> None:
    """As `nats stream edit` does: so much beyond what it holds."""

    async def limit() -> None:
        client = await nats.connect(url)
        js = client.jetstream()
        info = await js.stream_info(stream)
        await js.update_stream(info.config, max_bytes=info.state.bytes + room_bytes)
        await client.close()

    asyncio.run(limit())


def make_stream(url: str, **config: Any) -> None:
    async def make() -> None:
        client = await nats.connect(url)
        await client.jetstream().add_stream(name="broken", subjects=["rowstream.broken.>"], **config)
        await client.close()

    asyncio.run(make())


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "server") as running:
        assert isinstance(running, NatsServer)
        yield running


def test_a_stream_in_memory_is_refused_unless_any_durability_will_do(own_server: NatsServer) -> None:
    make_stream(own_server.url, storage=StorageType.MEMORY)
    refused = TestNatsBroker().make_transport(own_server.url)
    with pytest.raises(NotDurable, match=r"kept in memory.*make one with files, or say durability: any"):
        refused.claim()
    refused.close()
    taken = TestNatsBroker().make_transport(own_server.url, durability="any")
    taken.claim()
    taken.begin(HEADER)
    taken.close()


@pytest.mark.parametrize("limit", [{"max_bytes": 1 << 20}, {"max_msgs": 10}, {"max_age": 60.0}])
def test_a_stream_that_drops_its_oldest_messages_is_refused(own_server: NatsServer, limit: dict[str, Any]) -> None:
    make_stream(own_server.url, **limit)
    transport = TestNatsBroker().make_transport(own_server.url, durability="any")
    with pytest.raises(BrokerRefuses, match="drops"):
        transport.claim()
    transport.close()


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], set[str]]:
    """Call it with a status: from the first answer with it on nothing is heard of that consumer, which is in the set then. So server 2.9
    leaves one, now and then, where a request runs out just when a message comes.
    """
    take = NatsReader._take

    def make(status: str) -> set[str]:
        lost: set[str] = set()

        async def lossy(reader: NatsReader, message: Msg) -> None:
            if not lost and (message.headers or {}).get("Status") == status:
                lost.add(reader._consumer)
            if reader._consumer not in lost:
                await take(reader, message)

        monkeypatch.setattr(NatsReader, "_take", lossy)
        return lost

    return make


@pytest.mark.parametrize("status", ["404", "408"])
def test_a_consumer_that_does_not_answer_any_more_is_replaced_at_once(
    own_server: NatsServer, status: str, deaf: Callable[[str], set[str]]
) -> None:
    lost = deaf(status)
    transport = KIND.transport(own_server.url, "broken", timeout_s=20.0)
    transport.claim()
    transport.begin(HEADER)
    transport.publish([frame(0)], sync=True)
    subscription = transport.subscribe(None)
    reading = Reading(subscription)
    while not lost:
        reading.take_some(0.01)
    sent = [frame(k) for k in range(4)]
    transport.publish(sent[1:], sync=True)
    assert reading.take_all() == sent
    assert (subscription.trouble, subscription.reconnects) == (None, 0)
    transport.close()


def test_a_stream_that_was_replaced_behind_a_silent_consumer_is_noticed(
    own_server: NatsServer, deaf: Callable[[str], set[str]]
) -> None:
    lost = deaf("408")
    transport = KIND.transport(own_server.url, "broken", timeout_s=20.0)
    transport.claim()
    transport.begin(HEADER)
    subscription = transport.subscribe(None)
    while not lost:
        subscription.next(0.01)

    async def remove() -> None:
        client = await nats.connect(own_server.url)
        await client.jetstream().delete_stream("broken")
        await client.close()

    asyncio.run(remove())
    other = KIND.transport(own_server.url, "broken")
    other.claim()
    other.begin(HEADER)
    other.publish([frame(k) for k in range(20)], sync=True)
    with pytest.raises(StreamReplaced):
        subscription.next(20.0)
    other.close()
    transport.close()


def test_a_server_without_jetstream_says_so(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "server")
    server.command = lambda: ["nats-server", "-a", "127.0.0.1", "-p", str(server.port)]  # type: ignore[method-assign]
    with server:
        transport = TestNatsBroker().make_transport(server.url)
        with pytest.raises(BrokerUnreachable, match="start the server with -js"):
            transport.claim()
        transport.close()
