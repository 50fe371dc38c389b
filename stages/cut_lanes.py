"""Where cuts are made: in the time that training leaves, unless that is too little.

On two cores a cut that gives way costs training two percent of its speed less, and reaches replicas 9 ms later; that is, as long as the
processor is ever free. While other processes keep it busy, such a thread makes no cut, and training itself waits whenever it is
stopped with Python's lock in its hands. So a cut that comes late is followed by cuts that give way to nobody, for a while that doubles
each time it turns out to have been too short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from pipeline.flow import Lane
from pipeline.flow.priority import run_like_others, run_when_idle

LATE_S: Final = 0.1
"""Many times what a cut takes where there is time for it, the disk's part included."""
FIRST_SPAN_S: Final = 5.0
LONGEST_SPAN_S: Final = 320.0


class CutLanes:
    """``late``: cuts so far that took more than ``late_s`` in the time that others left."""

    def __init__(
        self,
        patient: Lane | None,
        prompt: Lane,
        *,
        late_s: float = LATE_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Calls run on ``patient``, a lane of one thread, which runs when the processor is idle, or on ``prompt``. None: on that alone."""
        self._patient, self.prompt = patient, prompt
        self._late_s, self._clock = late_s, clock
        self._span_s = FIRST_SPAN_S
        self._prompt_until = clock()
        self._thread: int | None = None
        self.late = 0

    async def run(self, call: Callable[..., Any], *args: Any) -> Any:
        """Run ``call(*args)`` on one of the lanes. One call at a time."""
        began = self._clock()
        if self._patient is None or began < self._prompt_until:
            return await self.prompt.run(call, *args)
        if began > self._prompt_until + self._span_s:
            self._span_s = FIRST_SPAN_S
        hurry = asyncio.get_running_loop().call_later(self._late_s, self._hurry)
        try:
            result = await self._patient.run(self._when_idle, call, *args)
        finally:
            hurry.cancel()
        ended = self._clock()
        if ended - began > self._late_s:
            self.late += 1
            self._prompt_until = ended + self._span_s
            self._span_s = min(2 * self._span_s, LONGEST_SPAN_S)
        return result

    def _when_idle(self, call: Callable[..., Any], *args: Any) -> Any:
        self._thread = run_when_idle()
        return call(*args)

    def _hurry(self) -> None:
        """Where that is allowed, the cut that is late need not go on as it began."""
        if self._thread is not None:
            run_like_others(self._thread)
