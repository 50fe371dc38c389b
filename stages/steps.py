"""Lets a stage wait, on the event loop, for steps to end and for room in L1."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from pipeline.store import Store


class StepSignal:
    """Wakes waiters on the loop when a step has ended or pins were released, on whatever thread that happened.

    Steps that nobody waits for cost the loop nothing: it is woken once for each ``clear``.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = asyncio.Event()
        self._asked = False
        """Somebody cleared and will look, then wait. The thread that sees it true takes it back and wakes the loop."""
        self._loop = asyncio.get_running_loop()
        store.on_step(lambda _step, _plan: self._wake())
        store.on_room(self._wake)

    def _wake(self) -> None:
        if self._asked and not self._loop.is_closed():
            self._asked = False
            self._loop.call_soon_threadsafe(self._changed.set)

    def wake(self) -> None:
        """Wake the waiters, from the loop."""
        self._changed.set()

    def clear(self) -> None:
        """Forget what happened so far; then look, then ``wait``: nothing that happens in between is missed."""
        self._changed.clear()
        self._asked = True

    async def wait(self, at_most_s: float | None = None) -> None:
        if at_most_s is None:
            await self._changed.wait()
        else:
            await wait_at_most(self._changed, at_most_s)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once ``condition`` holds; it is looked at again after each change."""
        while not condition():
            self.clear()
            if condition():
                return
            await self._changed.wait()

    async def ended(self, step: int) -> None:
        """Return once ``step`` has ended."""
        if self._store.fence.step < step:
            await self.until(lambda: self._store.fence.step >= step)


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Until ``event`` is set or ``seconds`` are over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def wait_for_either(one: asyncio.Event, other: asyncio.Event) -> None:
    """Until one of two events is set."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(event.wait()) for event in (one, other)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
