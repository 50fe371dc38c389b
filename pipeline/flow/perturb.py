"""Where a test may disturb a run: at every send, receive and stage entry on the loop, and at every entry of a lane.

None is the default everywhere, and costs one comparison where it costs anything at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Perturb(Protocol):
    """``point`` names the place: ``send NAME``, ``receive NAME``, ``stage NAME``, ``lane NAME``."""

    async def pause(self, point: str) -> None:
        """Awaited on the event loop."""

    def block(self, point: str) -> None:
        """Called on a lane's thread, before the call."""


SpanHook = Callable[[str, int, int], None]
"""``on_span(stage, start_ns, end_ns)`` by ``time.perf_counter_ns``, called on whichever thread did the work."""
