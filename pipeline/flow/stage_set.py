"""Opens the stages of a run in order and closes them in reverse, shielded and bounded in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from pipeline.flow.background import Background
from pipeline.flow.errors import FlowError, GraphError, StageError
from pipeline.flow.failures import Failures, stage_error
from pipeline.flow.lanes import Lanes
from pipeline.flow.member import Member
from pipeline.flow.nearest import listed
from pipeline.flow.stage import StageContext

GRACE_S = 1.0
"""How long a close that ran out of time may take to be cancelled before it is left behind."""


class StageSet:
    """The stages of a run. ``close`` reaches every stage whose ``open`` was begun, once."""

    def __init__(
        self,
        members: Sequence[Member],
        resources: Mapping[str, Any],
        lanes: Lanes,
        background: Background,
        stopping: Callable[[], bool],
    ) -> None:
        self._members = tuple(members)
        self._resources = resources
        self._lanes = lanes
        self._background, self._stopping = background, stopping
        self._opened: list[Member] = []

    async def open(self, restore: Mapping[str, Any]) -> None:
        """Open each stage and give it its state back. Raises StageError; GraphError when a state has no stage."""
        names = [member.name for member in self._members]
        for name, state in restore.items():
            if name not in names and state is not None:
                raise GraphError(f"there is a state of stage {name!r} to restore, but the stages are {listed(names)}")
        for member in self._members:
            self._opened.append(member)
            try:
                await member.stage.open(self._context(member))
                if restore.get(member.name) is not None:
                    member.stage.restore(restore[member.name])
            except Exception as error:
                raise stage_error(member.name, error, "open: ") from error

    async def close(self, error: BaseException | None, timeout_s: float, failures: Failures) -> None:
        """Close in reverse, each within ``timeout_s``.

        What goes wrong is noted in ``failures``; all the others are closed.
        """
        while self._opened:
            member = self._opened.pop()
            try:
                await bounded(member.stage.close(error), timeout_s, f"closing {member.name}")
            except Exception as fault:
                failures.note(stage_error(member.name, fault, "close: "))

    def _context(self, member: Member) -> StageContext:
        needs = member.stage.needs
        missing = [need for need in needs if need not in self._resources]
        if missing:
            raise StageError(member.name, f"needs {listed(missing)}; the resources are {listed(self._resources)}")
        return StageContext(
            name=member.name,
            resources={need: self._resources[need] for need in needs},
            lane=self._lanes.get,
            counters=member.counters,
            spawn=partial(self._background.spawn, member.name),
            stopping=self._stopping,
        )


async def bounded(work: Coroutine[Any, Any, None], timeout_s: float, name: str) -> None:
    """Await ``work`` for up to ``timeout_s``, then cancel it.

    Raises FlowError when it ran out of time, and what it raised.
    """
    task = asyncio.create_task(work, name=name)
    done, _ = await asyncio.wait([task], timeout=timeout_s)
    if not done:
        task.cancel(f"took longer than {timeout_s} s")
        await asyncio.wait([task], timeout=GRACE_S)
        raise FlowError(f"took longer than {timeout_s} s and was cancelled")
    await task


async def shielded(work: Coroutine[Any, Any, None], name: str) -> None:
    """Await ``work`` to its end, also when cancelled; the cancellation is raised behind it."""
    task = asyncio.create_task(work, name=name)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
