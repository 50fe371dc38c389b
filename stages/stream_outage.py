"""How the stream fares while its transport fails: when to try again, and what is told of it.

Rules.

1. What a transport raises does not end a run (``on_failure: retry``): the call is made again after a while that doubles from failure to
   failure, up to a longest one. Rows wait meanwhile, as ids, in bounded memory.
2. Some errors no later call can mend: those do. A fenced writer stops, since another trainer goes on in its place.
3. ``told`` is the state for progress line and summary: ``ok``, ``retrying``, and at the end ``behind`` where not all is published.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.files import LockedDirectory
from pipeline.stream import Duration, seconds_of
from pipeline.wire import StreamCorrupt, WriterFenced
from pipeline.wire.errors import NotDurable, TransportClosed

FOR_GOOD = (WriterFenced, NotDurable, StreamCorrupt, LockedDirectory)
"""Errors that no later call can mend."""


class RetryOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    first: Duration = Field(
        "100ms", description="how long to wait after a first failure; twice as long after each further one"
    )
    longest: Duration = Field("10s", description="how long to wait at most")

    @model_validator(mode="after")
    def _first_is_not_longer(self) -> RetryOptions:
        if seconds_of(self.first) > seconds_of(self.longest):
            raise ValueError(f"first ({self.first}) is longer than longest ({self.longest})")
        return self


class Outage:
    """``report`` is where ``told`` is kept up to date, under ``stream``."""

    def __init__(
        self,
        report: dict[str, Any],
        on_failure: Literal["retry", "stop"],
        retry: RetryOptions,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._report, self._clock = report, clock
        self._tolerates = on_failure == "retry"
        self._first_s, self._longest_s = seconds_of(retry.first), seconds_of(retry.longest)
        self._in_a_row = self._failures = self._outages = 0
        self.last_error: str | None = None
        self._since = clock()
        self._state: Literal["ok", "retrying", "behind"] = "ok"
        self._tell()

    def tolerates(self, error: BaseException) -> bool:
        """Whether the run goes on in spite of what a transport raised."""
        return self._tolerates and not isinstance(error, FOR_GOOD)

    def failed(self, error: BaseException) -> float:
        """A call failed, and will be made again: after how many seconds."""
        wait_s = min(self._first_s * 2.0 ** min(self._in_a_row, 30), self._longest_s)
        self._in_a_row += 1
        self._failures += 1
        self._outages += self._state == "ok"
        # When time is over the transport is closed: why it came to that is said already.
        if self.last_error is None or not isinstance(error, TransportClosed):
            self.last_error = f"{type(error).__name__}: {error}"
        self._be("retrying")
        return wait_s

    def over(self) -> None:
        """A call was answered."""
        self._in_a_row = 0
        if self._state != "ok":
            self._be("ok")

    def gave_up(self) -> None:
        """The run ends, and not all is published."""
        self._be("behind")

    def _be(self, state: Literal["ok", "retrying", "behind"]) -> None:
        if state != self._state:
            self._state, self._since = state, self._clock()
        self._tell()

    def _tell(self) -> None:
        self._report["stream"] = {
            "state": self._state,
            "since": datetime.fromtimestamp(self._since, UTC).isoformat(timespec="milliseconds"),
            "failures": self._failures,
            "outages": self._outages,
            "last_error": self.last_error,
        }
