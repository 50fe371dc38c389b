"""A source that is slower than everything behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tests.e2e.ragged import RaggedSource


class SlowRaggedSource(RaggedSource):
    """The same batches, each after a pause."""

    async def items(self) -> AsyncIterator[Any]:
        async for batch in super().items():
            await asyncio.sleep(0.02)
            yield batch
