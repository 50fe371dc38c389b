"""A user's stage that gives each batch its time, on a lane: so what watches a run from outside keeps up with it on any machine."""

from __future__ import annotations

import time
from typing import Any

from pydantic import Field

from pipeline.flow import Stage, StageOptions
from stages.items import RawBatch


class PacedOptions(StageOptions):
    seconds: float = Field(0.005, ge=0, description="what a batch takes")


class Paced(Stage):
    Options = PacedOptions
    consumes = RawBatch
    produces = RawBatch
    lane = "paced"

    def work(self, item: Any) -> Any:
        time.sleep(self.options.seconds)
        return item
