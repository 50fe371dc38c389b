"""The first error of a run, in time: the others come of it more often than not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

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

    async def watch(self, stage: str, work: Awaitable[None], where: str = "") -> None:
        """Await ``work`` on behalf of ``stage`` and note what it raises, named. The error goes on to the task group."""
        try:
            await work
        except Exception as error:
            named = error if isinstance(error, BaseExceptionGroup) else stage_error(stage, error, where)
            self.note(named)
            raise named from named.__cause__
