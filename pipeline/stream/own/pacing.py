"""When ``end_step`` makes a cut, and what becomes of one that failed because the transport did."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from pipeline.files import LockedDirectory
from pipeline.stream.outlet import of_transport
from pipeline.stream.policy import CutPolicy
from pipeline.wire.errors import NotDurable, StreamCorrupt, WriterFenced

FOR_GOOD = (WriterFenced, NotDurable, StreamCorrupt, LockedDirectory)
"""What no later cut can mend."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 10.0


class Pacing:
    """``every``: as ``CutPolicy`` reads it, None: never. Raises PolicyError."""

    def __init__(
        self,
        every: str | None,
        on_failure: Literal["raise", "retry"] = "raise",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every = None if every is None else CutPolicy.parse(every)
        self._retries, self._clock = on_failure == "retry", clock
        self._last, self._not_before = clock(), 0.0
        self._in_a_row = 0
        self.failures = 0
        """Cuts that were passed over."""
        self.last_failure: Exception | None = None
        """Why the last cut failed; None once one was made."""

    def is_due(self, steps_waiting: int, full: bool) -> bool:
        """``full``: so much waits that a cut is due whatever ``every`` says."""
        now = self._clock()
        due = full or (self._every is not None and self._every.is_due(steps_waiting, now - self._last, True))
        return steps_waiting > 0 and due and now >= self._not_before

    def made(self) -> None:
        """A cut was made."""
        self._last, self._in_a_row, self._not_before, self.last_failure = self._clock(), 0, 0.0, None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A cut that fails in it is passed over, if that was asked for and another one may do better; the next is made after a while that
        doubles.
        """
        try:
            yield
        except Exception as error:
            if not self._retries or not of_transport(error) or isinstance(error, FOR_GOOD):
                raise
            self._not_before = self._clock() + min(FIRST_WAIT_S * 2.0 ** min(self._in_a_row, 30), LONGEST_WAIT_S)
            self._in_a_row, self.failures = self._in_a_row + 1, self.failures + 1
            self.last_failure = error.with_traceback(None)
