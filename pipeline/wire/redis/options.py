"""Options of the ``redis`` transport."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.wire.broker.options import BrokerOptions, needs_package


class RedisOptions(BrokerOptions):
    kind: Literal["redis"] = "redis"
    url: str = Field(
        "redis://127.0.0.1:6379",
        repr=False,
        description="where the broker is (rediss:// encrypts), without credentials",
    )

    @model_validator(mode="after")
    def client_is_installed(self) -> Self:
        return needs_package(self, "redis", "redis")
