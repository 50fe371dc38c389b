"""Stages of a user's own in the built-in ones' place: each is a copy by inheritance that the runtime knows nothing of.

The ones that worked on the compute lane hop to it themselves, so that nothing is fused with its neighbours.
"""

from __future__ import annotations

from typing import Any

from pipeline.flow import Stage, StageContext
from stages.evict import Evict
from stages.lookup import Lookup
from stages.prefetch import Prefetch
from stages.train import Train
from stages.update import Update


class MyPrefetch(Prefetch):
    """The same, under another name."""


class MyEvict(Evict):
    """The same, under another name."""


class _OwnHop(Stage):
    """Turns ``work`` on a lane into ``process`` that hops to that lane itself."""

    lane = None

    async def open(self, context: StageContext) -> None:
        await super().open(context)
        self._own_lane = context.lane("compute")

    async def process(self, item: Any) -> Any:
        await self.ready(item)
        return await self._own_lane.run(self.work, item)


class MyLookup(_OwnHop, Lookup):  # type: ignore[misc]
    """The same, in a visit of its own: it waits for the fence of the step before."""


class MyTrain(_OwnHop, Train):  # type: ignore[misc]
    """The same, in a visit of its own."""


class MyUpdate(_OwnHop, Update):  # type: ignore[misc]
    """The same, in a visit of its own."""
