"""The frames of one stream, decoded one behind the other: some are compressed with what the header before them brought."""

from __future__ import annotations

from pipeline.wire.encoding import decode_frame
from pipeline.wire.frames import DEFAULT_LIMITS, Frame, FrameLimits, HeaderFrame


class FrameReader:
    """Keeps the last header. Not thread-safe."""

    def __init__(self, limits: FrameLimits = DEFAULT_LIMITS) -> None:
        self.header: HeaderFrame | None = None
        self._limits = limits

    def read(self, data: bytes | memoryview) -> Frame:
        """The next frame. Raises FrameError."""
        frame = decode_frame(data, self._limits, self.header)
        if isinstance(frame, HeaderFrame):
            self.header = frame
        return frame
