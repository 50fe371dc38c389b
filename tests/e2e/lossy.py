"""A stream stage that a user broke: it ends without its last cut."""

from __future__ import annotations

from pipeline.flow import Marker
from stages.stream import Stream


class LossyStream(Stream):
    """Forgets what changed since the last cut."""

    async def mark(self, _marker: Marker) -> None:
        self._ending.set()
        self._signal.wake()
        self._snapshot_signal.wake()
