"""A stage that lets item ``at`` pass only once something has happened, while everything else goes on: no step is held open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from pipeline.flow import Stage, StageOptions
from stages.items import RawBatch
from tests.e2e.patience import until

CONDITIONS: dict[str, Callable[[], bool]] = {}
"""By name: what is waited for."""


class GateOptions(StageOptions):
    at: int = Field(description="number of the item, from 1")
    name: str = Field(description="of the condition")


class Gate(Stage):
    Options = GateOptions
    consumes = RawBatch
    produces = RawBatch

    lane = "gate"

    def __init__(self, options: GateOptions) -> None:
        super().__init__(options)
        self._seen = 0

    def work(self, item: Any) -> Any:
        self._seen += 1
        if self._seen == self.options.at:
            until(CONDITIONS[self.options.name])
        return item
