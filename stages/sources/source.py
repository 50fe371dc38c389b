"""What all sources share: reading ahead within bounds, a cursor behind the last batch yielded, errors in their turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from pipeline.flow.channel import Channel
from pipeline.flow.errors import ClosedChannel
from pipeline.flow.run_info import RunInfo
from pipeline.flow.stage import Source, StageContext, StageOptions
from stages.items import RawBatch
from stages.sources.arrange import Arranger
from stages.sources.blocks import Arranged
from stages.sources.cursor import Cursor
from stages.sources.options import BatchOptions


class BatchSource(Source):
    """Base of the built-in sources. A subclass reads in ``_read`` and sends what its arranger returns.

    All work on samples happens on the lane ``source``; the event loop only passes batches on.
    """

    Options: ClassVar[type[StageOptions]] = BatchOptions
    produces = RawBatch
    needs: ClassVar[Mapping[str, type]] = {"run": RunInfo}

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._cursor = Cursor()
        self._stop = asyncio.Event()
        self._error: Exception | None = None

    async def open(self, context: StageContext) -> None:
        self._context = context
        self._lane = context.lane("source")
        run: RunInfo | None = context.resources.get("run")
        self._arranger = Arranger(self.options.arrangement(run.seed if run is not None else 0), self._cursor)

    async def _read(self, channel: Channel[Arranged], begin: Cursor) -> None:
        """Send every batch behind ``begin``, in order."""
        raise NotImplementedError(f"{type(self).__name__} reads nothing")

    async def items(self) -> AsyncIterator[RawBatch]:
        channel: Channel[Arranged] = Channel(
            f"{self._context.name} read-ahead", self.options.read_ahead, self.options.read_ahead_bytes
        )
        self._context.spawn(partial(self._read_ahead, channel), f"{self._context.name} read-ahead")
        try:
            async for arranged in channel:
                self._pass(arranged.cursor)
                yield arranged.batch
            if self._error is not None:
                raise self._error
            self._report(self._arranger.skipped)
        finally:
            self._stop.set()
            channel.abort()

    async def _read_ahead(self, channel: Channel[Arranged]) -> None:
        """An error waits until the batches before it were taken: what was good is trained on whatever the timing."""
        try:
            await self._read(channel, self._cursor)
        except ClosedChannel:
            return
        except Exception as error:
            self._error = error
        finally:
            channel.close()

    async def _send(self, channel: Channel[Arranged], batches: Sequence[Arranged]) -> None:
        for arranged in batches:
            await channel.send(arranged)

    def _pass(self, cursor: Cursor) -> None:
        previous, self._cursor = self._cursor, cursor
        if cursor.reported > previous.reported:
            self._context.counters.add("skipped", cursor.reported - previous.reported)

    def _report(self, skipped: int) -> None:
        """The bad lines behind the last batch."""
        if skipped > self._cursor.reported:
            self._context.counters.add("skipped", skipped - self._cursor.reported)

    def state(self) -> Any:
        return {"cursor": self._cursor.state()}

    def restore(self, state: Any) -> None:
        self._cursor = Cursor.of(state["cursor"])
        self._arranger = Arranger(self._arranger.plan, self._cursor)
