"""Options of the ``nats`` transport."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ByteSize, Field, model_validator

from pipeline.wire.broker.options import BrokerOptions, needs_package


class NatsOptions(BrokerOptions):
    kind: Literal["nats"] = "nats"
    url: str = Field(
        "nats://127.0.0.1:4222", repr=False, description="where the broker is (tls:// encrypts), without credentials"
    )
    max_bytes: ByteSize | None = Field(
        None, ge=1 << 20, description="of a stream that is made: beyond it the broker takes nothing; not set: its disk"
    )
    replicas: int = Field(1, ge=1, le=5, description="of a stream that is made: how many servers of a cluster keep it")

    @model_validator(mode="after")
    def client_is_installed(self) -> Self:
        return needs_package(self, "nats", "nats-py")
