"""What a writer has sent and nobody has acknowledged yet: pure bookkeeping.

Rules.

1. Frames wait here from the moment a call takes them until they are acknowledged. Those of a call that returned are *kept*: whatever
   happens to the connection, they are sent again.
2. A call that raised leaves its own frames *disputed*: some may have arrived. When the next call begins with the same frames, they are
   sent on from where they broke off. When it does not, its caller has given them up, and those that had not arrived are let go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

UNSENT = -1


class Window:
    """Frames in the order in which they go out. Bounded by who sends."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._frames: deque[tuple[bytes, int]] = deque()
        self._num_sent = 0
        self._taken: list[bytes] = []

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def oldest(self) -> int:
        """Number of the entry that ends the oldest frame that waits for acknowledgement; there is one."""
        return self._frames[0][1]

    @property
    def unsent(self) -> bytes | None:
        """The next frame to be sent."""
        return self._frames[self._num_sent][0] if self._num_sent < len(self._frames) else None

    def take(self, frame: bytes) -> None:
        """A frame of the call that runs."""
        self._taken.append(frame)
        self._frames.append((frame, UNSENT))
        self.nbytes += len(frame)

    def note_sent(self, last: int) -> None:
        """``unsent`` went out, up to entry ``last``."""
        self._frames[self._num_sent] = (self._frames[self._num_sent][0], last)
        self._num_sent += 1

    def acknowledge(self, number: int) -> None:
        while self._num_sent and self._frames[0][1] <= number:
            self.nbytes -= len(self._frames.popleft()[0])
            self._num_sent -= 1

    def settle(self) -> None:
        """The call that runs has returned: its frames are kept."""
        self._taken = []

    def retry(self, stored: int, frames: Sequence[bytes]) -> int:
        """Behind an error, with ``frames`` now to be published: what is stored has arrived, all else goes out anew. Returns how many of
        ``frames`` need not be taken any more (rule 2).
        """
        self.acknowledge(stored)
        self._frames = deque((frame, UNSENT) for frame, _ in self._frames)
        self._num_sent = 0
        disputed = len(self._taken)
        if list(frames[:disputed]) == self._taken:
            return disputed
        for _ in range(min(disputed, len(self._frames))):
            self.nbytes -= len(self._frames.pop()[0])
        self._taken = []
        return 0
