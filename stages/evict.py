"""evict: unpin the rows of a step that has ended, and clean ahead so that reserve rarely has to."""

from __future__ import annotations

from pipeline.flow import Stage, StageContext
from pipeline.store import Store
from stages.items import Stepped


class Evict(Stage):
    """Releases each step's pins; writes dirty rows that will soon be victims back to the tier below."""

    consumes = Stepped
    produces = Stepped
    needs = {"store": Store}
    lane = "evict"

    async def open(self, context: StageContext) -> None:
        self._store: Store = context.resources["store"]

    def work(self, item: Stepped) -> Stepped:
        if item.reservation is not None:
            self._store.release(item.reservation)
            self._store.clean_ahead()
        return Stepped(item.step, item.num_samples, None, item.scores)
