"""The source's loop: pull an item, send it, and between two items see to markers and stops.

Rules.

1. The source's state is taken only while every item it has yielded was sent: behind an item, or while it is being
   waited for.
2. A stop falls between two items. A source that is being waited for is cancelled (its cursor stands behind the last
   item it has yielded, whatever it read ahead); one whose item is being sent is not, or the item would be lost.
3. The last marker goes out behind the last item, then the channel closes. At the end of the input the source is
   drained first.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from time import perf_counter, perf_counter_ns
from typing import Any

from pipeline.flow.channel import Channel, wake_one
from pipeline.flow.failures import stage_error
from pipeline.flow.member import Member
from pipeline.flow.outlet import Outlet
from pipeline.flow.stage import Many, Marker, Source
from pipeline.flow.visit import END, Hooks

LIMIT = "limit"
CHECKPOINT = "checkpoint"
ENDLESS = 1 << 62
ACLOSE_S = 10.0


class SourcePump:
    """Drives one source. ``outcome`` says, once it has ended, why: "end", "limit" or the reason of the stop."""

    def __init__(
        self, member: Member, outlet: Outlet, hooks: Hooks, *, max_items: int | None, marker_items: int | None
    ) -> None:
        assert isinstance(member.stage, Source)
        self.member = member
        self.outcome: str | None = None
        self._source = member.stage
        self._outlet = outlet
        self._hooks = hooks
        self._limit = ENDLESS if max_items is None else max_items
        self._marker_items = marker_items
        self._due = self._next_due()
        self._task: asyncio.Task[Any] | None = None
        self._pulling = False
        self._stop: str | None = None
        self._cancelled = False
        self._attention = False
        self._marked: Marker | None = None
        self.num_markers = 0
        self._sent_at_marker = 0
        self._started: float | None = None
        self._ended: float | None = None
        self._marker_s = 0.0

    async def run(self) -> None:
        """Send everything, then the last marker, then close the outlet. Raises StageError."""
        self._task = asyncio.current_task()
        self._started = perf_counter()
        try:
            reason = await self._pump()
            self.outcome = reason
            if reason == END:
                await self._drain()
            await self._send_marker(Marker(reason, 0))
            self._outlet.close()
        finally:
            self._ended = perf_counter()

    def stop(self, reason: str) -> None:
        """End behind the item in hand, or at once if there is none.

        The first reason stays; after the end it does nothing.
        """
        if self._stop is None:
            self._stop = reason
            self._attention = True
            if self._task is not None:
                # Not here: this may be called by the source itself, and only a suspended one can be cancelled cleanly.
                asyncio.get_running_loop().call_soon(self._interrupt)

    def want_marker(self, reason: str) -> Callable[[], Any] | None:
        """Ask for a marker behind the last item sent. Returns a coroutine function for the caller to run in its task
        group, if the source is being waited for, or None if the pump sees to it. Nothing happens when no item came
        since the last one."""
        if self.outcome is not None or self._stop is not None or self.member.items_out == self._sent_at_marker:
            return None
        marker = Marker(reason, 0)
        if self._pulling:
            return lambda: self._mark_waiting(marker)
        self._marked = marker
        self._attention = True
        return None

    def service_s(self) -> float:
        """Time the source was worked in or waited for: all but sends and markers."""
        if self._started is None:
            return 0.0
        end = perf_counter() if self._ended is None else self._ended
        sends = 0.0 if self._outlet.channel is None else self._outlet.channel.stats().send_wait_s
        return max(0.0, end - self._started - sends - self._marker_s)

    async def _pump(self) -> str:
        if self._limit == 0 or self._stop is not None:
            return self._stop or LIMIT
        try:
            items = self._source.items()
        except Exception as error:
            raise stage_error(self.member.name, error) from error
        try:
            return await self._send_all(items)
        except asyncio.CancelledError:
            if not self._cancelled or self._uncancel() > 0 or self._stop is None:
                raise
            return self._stop
        finally:
            self._pulling = False
            await self._close_items(items, sys.exc_info()[1])

    async def _send_all(self, items: AsyncIterator[Any]) -> str:
        member, channel = self.member, self._fast_channel()
        pull = items.__anext__
        while True:
            self._pulling = True
            begin = perf_counter_ns() if self._hooks.on_span is not None else 0
            try:
                item = await pull()
            except StopAsyncIteration:
                return self._stop or END
            except Exception as error:
                raise stage_error(member.name, error) from error
            self._pulling = False
            if channel is not None and len(channel.queue) < channel.max_items:
                channel.queue.append(item)
                if channel.receivers:
                    wake_one(channel.receivers)
            else:
                await self._send_one(item, begin)
            member.items_out += 1
            if member.items_out >= self._due or self._attention:
                reason = await self._attend()
                if reason is not None:
                    return reason

    async def _send_one(self, item: Any, begin: int) -> None:
        if self._hooks.on_span is not None:
            self._hooks.on_span(self.member.name, begin, perf_counter_ns())
        if self._hooks.perturb is not None:
            await self._hooks.perturb.pause(f"stage {self.member.name}")
        await self._outlet.put(item)

    async def _attend(self) -> str | None:
        """Between two items: stop (returns why), send a marker, or nothing of these."""
        self._attention = False
        if self._stop is not None:
            self._uncancel()
            return self._stop
        if self.member.items_out >= self._limit:
            return LIMIT
        if self.member.items_out >= self._due:
            self._due = self._next_due()
            await self._send_marker(Marker(CHECKPOINT, 0))
        if self._marked is not None:
            marker, self._marked = self._marked, None
            await self._send_marker(marker)
        return None

    async def _mark_waiting(self, marker: Marker) -> None:
        """The source is being waited for, perhaps for long: the marker goes out without it."""
        await self._source.mark(marker)
        if self._pulling:
            self._stamp(marker)
            await self._outlet.force(marker)
        else:
            # An item came meanwhile: the pump stamps the marker behind it, unless the last marker makes it needless.
            self._marked, self._attention = marker, True

    async def _drain(self) -> None:
        try:
            drained = await self._source.drain()
        except Exception as error:
            raise stage_error(self.member.name, error, "drain: ") from error
        if drained is not None:
            for item in drained if type(drained) is Many else (drained,):
                await self._outlet.put(item)
                self.member.items_out += 1

    async def _send_marker(self, marker: Marker) -> None:
        begin = perf_counter()
        try:
            await self._source.mark(marker)
            self._stamp(marker)
        except Exception as error:
            raise stage_error(self.member.name, error, f"marker {marker.reason!r}: ") from error
        self._marker_s += perf_counter() - begin
        await self._outlet.pass_on(marker)

    def _stamp(self, marker: Marker) -> None:
        self.num_markers += 1
        marker.number = self.num_markers
        marker.states[self.member.name] = self._source.state()
        self._sent_at_marker = self.member.items_out

    def _next_due(self) -> int:
        every = self._marker_items
        behind = ENDLESS if every is None else (self.member.items_out // every + 1) * every
        return min(behind, self._limit)

    def _fast_channel(self) -> Channel[Any] | None:
        hooked = self._hooks.perturb is not None or self._hooks.on_span is not None
        channel = self._outlet.channel
        return None if hooked or channel is None or channel.max_bytes is not None else channel

    def _interrupt(self) -> None:
        if self._pulling and self._task is not None and not self._task.done():
            self._cancelled = True
            self._task.cancel("the source was told to stop")

    def _uncancel(self) -> int:
        """Take back the pump's own cancellation; what is left is somebody else's."""
        if not self._cancelled or self._task is None:
            return 0
        self._cancelled = False
        return self._task.uncancel()

    async def _close_items(self, items: AsyncIterator[Any], pending: BaseException | None) -> None:
        """Close a generator; what goes wrong in that never replaces the error that is on its way already."""
        aclose = getattr(items, "aclose", None)
        if aclose is None:
            return
        try:
            async with asyncio.timeout(ACLOSE_S):
                await aclose()
        except Exception as error:
            if pending is None:
                raise stage_error(self.member.name, error, "closing items(): ") from error
            pending.add_note(f"then, closing items() of {self.member.name!r}: {type(error).__name__}: {error}")
