"""Value-exact over a real redis server."""

from __future__ import annotations

from tests.contracts.streamed_broker import BrokerStreamContract


class TestRedisStream(BrokerStreamContract):
    kind = "redis"
