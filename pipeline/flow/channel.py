"""The channel between two stages: bounded by items and by bytes, ended by closing, with its waits measured.

Rules.

1. An item is handed over whole or not at all: a cancelled ``send`` sent nothing, a cancelled ``receive`` took nothing.
2. ``close`` ends the sending. What was sent can still be received; then ``receive`` raises EndOfChannel.
3. ``abort`` ends both sides at once and drops what waits. Both sides then raise ClosedChannel, so that nobody takes
   it for an end.
4. An item larger than the byte bound passes alone, when the channel is empty.
5. Senders are served in the order in which they began to wait.
6. Clocks are read only by those who wait. Depth is noted when an item is taken (the taken one included).

One loop's thread only. ``queue``, ``receivers`` and ``senders`` are open to ``burst``, which moves many items with
one look at the bounds; nobody else touches them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeVar

from pipeline.flow.errors import ClosedChannel, EndOfChannel
from pipeline.flow.perturb import Perturb

T = TypeVar("T")
Waiters = deque[asyncio.Future[None]]


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """``items`` counts what was taken, markers included. Depths are in items, as found by those who took one."""

    name: str
    items: int
    depth: int
    depth_mean: float
    depth_max: int
    bytes: int
    send_wait_s: float
    receive_wait_s: float
    max_items: int
    max_bytes: int | None


class Channel(Generic[T]):
    """A queue of at most ``items`` items whose ``nbytes`` (0 where they have none) sum to at most ``nbytes``; None:
    no byte bound.
    """

    __slots__ = (
        "_sizes",
        "aborted",
        "bytes",
        "closed",
        "depth_looks",
        "depth_max",
        "depth_sum",
        "max_bytes",
        "max_items",
        "name",
        "perturb",
        "queue",
        "receive_since",
        "receive_wait_s",
        "receivers",
        "send_since",
        "send_wait_s",
        "senders",
        "taken",
    )

    def __init__(self, name: str, items: int, nbytes: int | None = None, *, perturb: Perturb | None = None) -> None:
        if items < 1 or (nbytes is not None and nbytes < 1):
            raise ValueError(f"channel {name!r}: items {items}, bytes {nbytes}; the least bound of each is 1")
        self.name = name
        self.max_items = items
        self.max_bytes = nbytes
        self.perturb = perturb
        self.queue: deque[T] = deque()
        self.receivers: Waiters = deque()
        self.senders: Waiters = deque()
        self.closed = False
        self.aborted = False
        self.bytes = 0
        self.taken = 0
        self.depth_sum = 0
        self.depth_looks = 0
        self.depth_max = 0
        self.send_wait_s = 0.0
        self.receive_wait_s = 0.0
        self.send_since: float | None = None
        self.receive_since: float | None = None
        self._sizes: deque[int] = deque()

    async def send(self, item: T) -> None:
        """Wait for room and hand the item over. Raises ClosedChannel when the channel was closed or aborted."""
        if self.perturb is not None:
            await self.perturb.pause(f"send {self.name}")
        size = 0 if self.max_bytes is None else getattr(item, "nbytes", 0)
        if self.senders or not self._fits(size):
            await self._wait_room(size)
        self.force(item, size)
        if self.senders and len(self.queue) < self.max_items:
            wake_one(self.senders)

    async def receive(self) -> T:
        """Wait for an item and take it. Raises EndOfChannel when closed and empty, ClosedChannel when aborted."""
        if self.perturb is not None:
            await self.perturb.pause(f"receive {self.name}")
        if not self.queue and not await self.wait_items():
            raise EndOfChannel(f"channel {self.name!r} has ended")
        self.note_depth()
        self.taken += 1
        return self.take()

    def take(self) -> T:
        """Take the first of the items that wait; there must be one. Counts nothing."""
        item = self.queue.popleft()
        if self.max_bytes is not None:
            self.bytes -= self._sizes.popleft()
        if self.senders:
            wake_one(self.senders)
        return item

    def offer(self, item: T) -> bool:
        """Hand the item over if there is room now; False if not. Raises ClosedChannel."""
        size = 0 if self.max_bytes is None else getattr(item, "nbytes", 0)
        if self.senders or not self._fits(size):
            return False
        self.force(item, size)
        return True

    def force(self, item: T, size: int = 0) -> None:
        """Append without waiting, whatever the bounds: for what has no size and is rare. Raises ClosedChannel."""
        if self.closed:
            raise ClosedChannel(
                f"channel {self.name!r} was {'aborted' if self.aborted else 'closed'}; nothing can be sent"
            )
        self.queue.append(item)
        if self.max_bytes is not None:
            self._sizes.append(size)
            self.bytes += size
        if self.receivers:
            wake_one(self.receivers)

    def close(self) -> None:
        """End the sending. Those who wait to send get ClosedChannel. May be called again."""
        self.closed = True
        wake_all(self.receivers)
        wake_all(self.senders)

    def abort(self) -> None:
        """End both sides at once and drop what waits. May be called again."""
        self.aborted = True
        self.queue.clear()
        self._sizes.clear()
        self.bytes = 0
        self.close()

    def note_depth(self) -> None:
        """Count the present depth into the mean and the maximum."""
        depth = len(self.queue)
        self.depth_sum += depth
        self.depth_looks += 1
        if depth > self.depth_max:
            self.depth_max = depth

    async def wait_items(self) -> bool:
        """Wait until something can be taken (True) or the channel has ended (False).

        Raises ClosedChannel when aborted.
        """
        begin = self.receive_since = perf_counter()
        try:
            while not self.queue and not self.closed:
                await park(self.receivers)
        finally:
            self.receive_wait_s += perf_counter() - begin
            self.receive_since = None
        if self.aborted:
            raise ClosedChannel(f"channel {self.name!r} was aborted; what it held is gone")
        return bool(self.queue)

    async def wait_room(self) -> None:
        """Wait until an item of no size fits, or the channel is closed."""
        if not self._fits(0):
            await self._wait_room(0)

    def stats(self) -> ChannelStats:
        """A snapshot; waits that have not ended count up to now."""
        now = perf_counter()
        return ChannelStats(
            name=self.name,
            items=self.taken,
            depth=len(self.queue),
            depth_mean=self.depth_sum / self.depth_looks if self.depth_looks else 0.0,
            depth_max=self.depth_max,
            bytes=self.bytes,
            send_wait_s=self.send_wait_s + (0.0 if self.send_since is None else now - self.send_since),
            receive_wait_s=self.receive_wait_s + (0.0 if self.receive_since is None else now - self.receive_since),
            max_items=self.max_items,
            max_bytes=self.max_bytes,
        )

    def __aiter__(self) -> Channel[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except EndOfChannel:
            raise StopAsyncIteration from None

    def _fits(self, size: int) -> bool:
        if self.closed or not self.queue:
            return True
        return len(self.queue) < self.max_items and (self.max_bytes is None or self.bytes + size <= self.max_bytes)

    async def _wait_room(self, size: int) -> None:
        begin = self.send_since = perf_counter()
        again = False
        try:
            while not again or not self._fits(size):
                await park(self.senders, first=again)
                again = True
        finally:
            self.send_wait_s += perf_counter() - begin
            self.send_since = None


async def park(waiters: Waiters, *, first: bool = False) -> None:
    """Wait to be woken, behind the others or before them.

    Cancelled, it wakes the next in its place, who looks again.
    """
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if first:
        waiters.appendleft(future)
    else:
        waiters.append(future)
    try:
        await future
    except asyncio.CancelledError:
        with contextlib.suppress(ValueError):
            waiters.remove(future)
        wake_one(waiters)
        raise


def wake_one(waiters: Waiters) -> None:
    """Wake the one that has waited longest and still does."""
    while waiters:
        future = waiters.popleft()
        if not future.done():
            future.set_result(None)
            return


def wake_all(waiters: Waiters) -> None:
    """Wake everybody."""
    while waiters:
        wake_one(waiters)
