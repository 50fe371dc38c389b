"""The first error of a run, in time: the others come of it more often than not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from pipeline.flow.errors import StageError


def stage_error(stage: str, error: Exception, where: str = "") -> StageError:
    """``error`` as a StageError that names the stage; one that names a stage already stays as it is."""
    if isinstance(error, StageError):
        return error
    named = StageError(stage, f"{where}{type(error).__name__}: {error}")
    named.__cause__ = error
    return named


class Failures:
    """Keeps the first error; later ones become notes on it, so that none is lost."""

    def __init__(self) -> None:
        self.first: BaseException | None = None
        self._noted: list[BaseException] = []

    def note(self, error: BaseException) -> None:
        """Keep ``error`` if it is the first, or note it on the first, once. Cancellations are no errors."""
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                self.note(inner)
        elif isinstance(error, asyncio.CancelledError) or any(one in (error, error.__cause__) for one in self._noted):
            return
        elif self.first is None:
            self.first = error
        else:
            self.first.add_note(f"then: {type(error).__name__}: {error}")
        self._noted.append(error)

    def start(
        self, group: asyncio.TaskGroup, stage: str, work: Callable[[], Awaitable[None]], name: str, where: str = ""
    ) -> asyncio.Task[None] | None:
        """A task of ``group`` that does ``work`` on behalf of ``stage``. None when the group is ending."""
        watched = self._watch(stage, work, where)
        with contextlib.suppress(RuntimeError):
            return group.create_task(watched, name=name)
        watched.close()
        return None

    async def _watch(self, stage: str, work: Callable[[], Awaitable[None]], where: str) -> None:
        """Note what ``work`` raises, named. The error goes on to the task group."""
        try:
            # Begun here, not by the caller: a task that is cancelled before its first step would leave it unawaited.
            await work()
        except Exception as error:
            named = error if isinstance(error, BaseExceptionGroup) else stage_error(stage, error, where)
            self.note(named)
            raise named from named.__cause__
