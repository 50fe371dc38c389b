"""The frames of one stream, decoded one behind the other: some are compressed with what the header before them brought.

A trainer that was replaced may go on publishing behind the header of the newer generation, with the dictionary of its own.
"""

from __future__ import annotations

from contextlib import suppress

from pipeline.wire.encoding import decode_frame
from pipeline.wire.errors import FrameError
from pipeline.wire.frames import DEFAULT_LIMITS, Frame, FrameLimits, HeaderFrame

MAX_REPLACED = 4


class FrameReader:
    """Keeps the header of the newest generation, and the last few dictionaries of older ones. Not thread-safe."""

    def __init__(self, limits: FrameLimits = DEFAULT_LIMITS, header: HeaderFrame | None = None) -> None:
        """``header``: what lay before the first frame."""
        self.header = header
        self._limits = limits
        self._replaced: list[HeaderFrame] = []

    def read(self, data: bytes | memoryview) -> Frame:
        """The next frame. Raises FrameError."""
        try:
            frame = decode_frame(data, self._limits, self.header)
        except FrameError:
            found = self._read_replaced(data)
            if found is None:
                raise
            return found
        if isinstance(frame, HeaderFrame):
            self._keep(frame)
        return frame

    def _keep(self, header: HeaderFrame) -> None:
        before = self.header
        if before is not None and header.generation < before.generation:
            self._remember(header)
            return
        if before is not None and before.generation < header.generation:
            self._remember(before)
        self.header = header

    def _remember(self, header: HeaderFrame) -> None:
        if header.dictionary:
            self._replaced = [*self._replaced, header][-MAX_REPLACED:]

    def _read_replaced(self, data: bytes | memoryview) -> Frame | None:
        for header in self._replaced:
            with suppress(FrameError):
                frame = decode_frame(data, self._limits, header)
                if frame.generation == header.generation:
                    return frame
        return None
