"""The fast loop of an inline stage: many items with one look at the bounds.

Rules.

1. A burst takes at most as many items as wait in front and as there is room for behind. Both can only grow meanwhile,
   because this loop is the only receiver of the one channel and the only sender of the other. (Room in bytes is looked
   at for each item.)
2. Each result is handed over, and whoever waits for it woken, before the next item is touched: a stage may wait for what
   a later stage does with an earlier item.
3. Clocks are read and items counted once a burst, so figures seen from outside lag behind by one burst at most.
4. Only for stages without ``ready`` and error policies, and without hooks.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

from pipeline.flow.channel import Channel, wake_one
from pipeline.flow.failures import stage_error
from pipeline.flow.stage import Many, Marker
from pipeline.flow.visit import InlineVisit

MOST = 256
"""Items in a burst that ends in no channel."""
NOTHING = Many()


class BurstVisit(InlineVisit):
    """One inline stage, in bursts."""

    async def run(self) -> None:
        inbox, outbox = self.inbox, self.outlet.channel
        while True:
            most = len(inbox.queue)
            if not most:
                if not await inbox.wait_items():
                    break
                continue
            if outbox is None:
                room = MOST
            else:
                room = outbox.max_items - len(outbox.queue)
                if room <= 0:
                    await outbox.wait_room()
                    continue
            inbox.note_depth()
            await self._burst(min(most, room), outbox)
        self.outlet.close()

    async def _burst(self, most: int, outbox: Channel[Any] | None) -> None:
        """Work on ``most`` items, or up to a marker, Many, or a result that must wait for room: these go the slow way."""
        inbox, member = self.inbox, self._head
        take = inbox.queue.popleft if inbox.max_bytes is None else inbox.take
        sized = outbox is not None and outbox.max_bytes is not None
        senders, process = inbox.senders, member.stage.process
        taken = done = 0
        slow: Any = NOTHING
        begin = perf_counter_ns()
        try:
            for taken in range(1, most + 1):  # noqa: B007
                item = take()
                if senders:
                    wake_one(senders)
                if type(item) is Marker:
                    slow = item
                    break
                result = await process(item)
                if type(result) is Many or (sized and not outbox.offer(result)):  # type: ignore[union-attr]
                    slow = result if type(result) is Many else Many((result,))
                    break
                done += 1
                if outbox is not None and not sized:
                    outbox.queue.append(result)
                    if outbox.receivers:
                        wake_one(outbox.receivers)
        except Exception as error:
            raise stage_error(member.name, error) from error
        finally:
            member.service_ns += perf_counter_ns() - begin
            member.items_in += taken
            member.items_out += done
            inbox.taken += taken
        if slow is not NOTHING:
            await self._finish_slow(slow)

    async def _finish_slow(self, slow: Marker | Many) -> None:
        if type(slow) is Many:
            self._head.items_out += len(slow)
            await self.emit(slow)
        elif type(slow) is Marker:
            self._head.items_in -= 1
            await self.pass_marker(slow)
