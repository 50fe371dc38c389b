"""Where a visit's results go: into the next channel, or out of the graph."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pipeline.flow.channel import Channel
from pipeline.flow.stage import Marker


class Outlet:
    """Behind the last visit items are dropped (whoever wanted them was a stage) and markers go to ``on_marker``."""

    __slots__ = ("_on_marker", "channel")

    def __init__(self, channel: Channel[Any] | None, on_marker: Callable[[Marker], Awaitable[None]]) -> None:
        self.channel = channel
        self._on_marker = on_marker

    async def put(self, item: Any) -> None:
        """Hand one item on, waiting for room."""
        if self.channel is not None:
            await self.channel.send(item)
        else:
            # A source that never waits would otherwise never let the loop see a signal.
            await asyncio.sleep(0)

    async def pass_on(self, marker: Marker) -> None:
        """Hand a marker on behind all items before it."""
        if self.channel is not None:
            await self.channel.send(marker)
        else:
            await self._on_marker(marker)

    async def force(self, marker: Marker) -> None:
        """The same without waiting for room, so that nothing can come between. Only while nobody else sends."""
        if self.channel is not None:
            self.channel.force(marker)
        else:
            await self._on_marker(marker)

    def close(self) -> None:
        """Nothing more will come."""
        if self.channel is not None:
            self.channel.close()
