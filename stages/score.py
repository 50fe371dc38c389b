"""score: progressive metrics, beside training. Each batch was scored by the model before it was trained on."""

from __future__ import annotations

from typing import Any

from pipeline.flow import Stage, StageContext
from pipeline.models.metrics import BinaryMetrics
from stages.items import Stepped


class Score(Stage):
    """Counts what the model said of each batch: log loss and AUC of the whole run. Without it a run has neither."""

    consumes = Stepped
    produces = Stepped
    needs = {"metrics": BinaryMetrics}
    lane = "evict"

    async def open(self, context: StageContext) -> None:
        self._metrics: BinaryMetrics = context.resources["metrics"]

    def work(self, item: Stepped) -> Stepped:
        if item.scores is not None:
            self._metrics.add(item.scores.logits_b, item.scores.labels_b)
        return Stepped(item.step, item.num_samples, item.reservation)

    def state(self) -> Any:
        return {"metrics": self._metrics.state()}

    def restore(self, state: Any) -> None:
        self._metrics.restore(state["metrics"])
