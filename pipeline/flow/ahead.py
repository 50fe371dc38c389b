"""A lane visit that keeps its lane supplied: the next items are queued on the lane while one is being worked on.

Rules.

1. Items are queued in order, and results handed on in order, each as soon as it is there.
2. No more items are on the lane than there is room for behind, but one in any case: with those that wait behind they stay
   within the bound of that channel.
3. After an item has failed none behind it is begun, and a cancelled visit withdraws what has not begun.
4. A marker waits until everything before it has been handed on.
5. Only for lanes of one thread, for stages without ``ready`` (which is awaited when the item before is done), and
   without delays for tests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from pipeline.flow.channel import Channel
from pipeline.flow.lanes import ThreadLane
from pipeline.flow.mailbox import Job, withdraw
from pipeline.flow.member import Member
from pipeline.flow.outlet import Outlet
from pipeline.flow.stage import Marker
from pipeline.flow.visit import Hooks, LaneVisit

MOST = 8
"""Items on the lane at once; more would only hold more."""


class _Behind(Exception):
    """The item comes behind one that failed. Never seen outside: the visit ends with the error of the first."""


class AheadVisit(LaneVisit):
    """One or several stages on one lane, without ``ready``."""

    def __init__(
        self, members: Sequence[Member], inbox: Channel[Any], outlet: Outlet, hooks: Hooks, lane: ThreadLane
    ) -> None:
        super().__init__(members, inbox, outlet, hooks, lane)
        self._thread = lane
        self._failed = False
        self._queued: deque[Job] = deque()

    async def run(self) -> None:
        inbox, queued = self.inbox, self._queued
        try:
            while True:
                self._supply()
                if queued:
                    result = await queued[0].future
                    queued.popleft()
                    await self.emit(result)
                elif inbox.queue:
                    await self.pass_marker(await inbox.receive())
                elif not await inbox.wait_items():
                    break
        finally:
            await withdraw(queued)
        self.outlet.close()

    def _supply(self) -> None:
        """Queue what waits in front, up to a marker."""
        inbox, outbox, queued = self.inbox, self.outlet.channel, self._queued
        room = MOST if outbox is None else min(MOST, outbox.max_items - len(outbox.queue))
        while inbox.queue and len(queued) < max(room, 1) and type(inbox.queue[0]) is not Marker:
            inbox.note_depth()
            inbox.taken += 1
            queued.append(self._thread.submit(self._unless_failed, inbox.take()))

    def _unless_failed(self, item: Any) -> Any:
        """On the lane."""
        if self._failed:
            raise _Behind
        try:
            return self._descend(0, item)
        except BaseException:
            self._failed = True
            raise
