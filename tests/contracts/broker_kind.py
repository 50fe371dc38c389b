"""What the tests have to know of one kind of broker, to speak to it in all the ways of the contracts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from pipeline.wire.broker.broker import Broker
from pipeline.wire.broker.options import BrokerOptions
from pipeline.wire.broker.transport import BrokerTransport
from tests.contracts.transport import TransportContract
from tests.support.servers import Server

NAMES = (f"stream{k}" for k in itertools.count())


@dataclass(frozen=True)
class BrokerKind:
    server: type[Server]
    options: type[BrokerOptions]
    broker: Callable[..., Broker]
    """Called with options and the generation."""
    small: Mapping[str, Any] = field(default_factory=dict)
    """Options with which a part is a few frames and a read is one."""
    small_parts: Mapping[str, Any] = field(default_factory=dict)
    """Options with which a part alone is."""

    def transport(self, url: str, stream: str, generation: int = 0, **options: Any) -> BrokerTransport:
        made = self.options(**{"url": url, "stream": stream, **options})
        return BrokerTransport(self.broker(made, generation), made)


class BrokerTransportContract(TransportContract):
    """What every transport promises, of one over a real broker; the class names the kind."""

    fences = True
    KIND: ClassVar[BrokerKind]

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        with cls.KIND.server(tmp_path_factory.mktemp(cls.KIND.server.scheme)) as running:
            yield running

    @pytest.fixture
    def opener(self, server: Server) -> Iterator[Callable[[], BrokerTransport]]:
        stream = next(NAMES)
        opened: list[BrokerTransport] = []

        def open_one() -> BrokerTransport:
            opened.append(self.KIND.transport(server.url, stream, **self.KIND.small))
            return opened[-1]

        yield open_one
        for transport in opened:
            transport.close()
