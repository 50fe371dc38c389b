"""Value-exact over a real nats server."""

from __future__ import annotations

from tests.contracts.streamed_broker import BrokerStreamContract


class TestNatsStream(BrokerStreamContract):
    kind = "nats"
