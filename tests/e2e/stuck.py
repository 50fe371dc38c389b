"""A user's source and stage that tell a test, by files, how far they are: the stage never lets its third batch go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from pipeline.flow import Stage, StageContext, StageOptions
from stages.items import RawBatch
from tests.e2e.ragged import RaggedOptions, RaggedSource


class TellingOptions(RaggedOptions):
    tell: Path = Field(description="a file made when the source is told to stop")


class TellingSource(RaggedSource):
    """Waits for more behind its last batch, until it is told to stop."""

    Options: ClassVar[type[StageOptions]] = TellingOptions

    async def open(self, context: StageContext) -> None:
        self._files = context.lane("telling")

    async def items(self) -> AsyncIterator[Any]:
        try:
            async for batch in super().items():
                yield batch
            await asyncio.Event().wait()
        finally:
            await self._files.run(self.options.tell.touch)


class StuckOptions(StageOptions):
    tell: Path = Field(description="a file made when the third batch has come")


class Stuck(Stage):
    """Waits for ever with its third batch."""

    Options = StuckOptions
    consumes = produces = RawBatch

    async def open(self, context: StageContext) -> None:
        self._files, self._seen = context.lane("telling"), 0

    async def process(self, item: RawBatch) -> RawBatch:
        self._seen += 1
        if self._seen == 3:
            await self._files.run(self.options.tell.touch)
            await asyncio.Event().wait()
        return item
