"""Tasks that stages start beside their items: children of the run, named, and ended with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pipeline.flow.errors import FlowError
from pipeline.flow.failures import Failures

Start = Callable[[], Awaitable[None]]


class Background:
    """Tasks asked for before the group is there (in ``open``) start with it."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._group: asyncio.TaskGroup | None = None
        self._early: list[tuple[str, Start, str]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = False

    def spawn(self, stage: str, start: Start, name: str) -> None:
        """Start a task on behalf of ``stage``. Raises FlowError when the run is over."""
        if self._over:
            raise FlowError(f"stage {stage!r}: task {name!r} cannot start, the run is over")
        if self._group is None:
            self._early.append((stage, start, name))
            return
        task = self._failures.start(self._group, stage, start, f"{stage}: {name}", f"task {name!r}: ")
        if task is None:
            raise FlowError(f"stage {stage!r}: task {name!r} cannot start, the run is ending")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Adopt the group and start what was asked for."""
        self._group = group
        for stage, start, name in self._early:
            self.spawn(stage, start, name)
        self._early.clear()

    def cancel(self) -> None:
        """End what still runs; nothing can be started any more."""
        self._over = True
        for task in self._tasks:
            task.cancel()
