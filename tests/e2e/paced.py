"""A user's stage that gives each batch its time: what watches a run from outside can keep up with it on any machine."""

from __future__ import annotations

import time
from typing import Any

from pipeline.flow import Stage
from stages.items import RawBatch

PACE_S = 0.005


class Paced(Stage):
    consumes = RawBatch
    produces = RawBatch
    lane = "paced"

    def work(self, item: Any) -> Any:
        time.sleep(PACE_S)
        return item
