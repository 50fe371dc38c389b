"""The fence: steps write one after the other, and whoever must see the end of a step runs between two of them.

Turns are handed over in the order they were asked for. A training loop that never pauses therefore meets everyone who
asked while its step ran before it writes again; nobody waits longer than one step and those ahead of him.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from cuda.backend import forbid_event_loop
from pipeline.store.errors import BrokenFence, OutOfStep

Result = TypeVar("Result")


class HandoverLock:
    """A re-entrant lock that is handed to the one who has waited longest; releasing and taking it again cannot
    overtake him.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._owner: int | None = None
        self._depth = 0

    @property
    def mine(self) -> bool:
        return self._owner == threading.get_ident()

    def acquire(self) -> None:
        me = threading.get_ident()
        if self._owner == me:
            self._depth += 1
            return
        with self._mutex:
            if self._depth == 0:
                self._owner, self._depth = me, 1
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        try:
            gate.acquire()
        except BaseException:
            self._give_up(gate)
            raise
        self._owner = me

    def release(self) -> None:
        if self._depth > 1:
            self._depth -= 1
            return
        with self._mutex:
            self._owner = None
            if self._waiting:
                self._waiting.popleft().release()  # depth stays 1: the lock is theirs already
            else:
                self._depth = 0

    def _give_up(self, gate: threading.Lock) -> None:
        with self._mutex:
            handed_over = gate not in self._waiting
            if not handed_over:
                self._waiting.remove(gate)
        if handed_over:
            self.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class _Holding:
    """``Fence.hold``. Keeps nothing, so one serves all; a generator would cost every step some microseconds more."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence

    def __enter__(self) -> None:
        self._fence._enter()

    def __exit__(self, *error: object) -> None:
        self._fence._turn.release()


class _HoldingToWrite(_Holding):
    """``Fence.hold_to_write``."""

    def __enter__(self) -> None:
        self._fence.step_waits = True
        try:
            self._fence._enter()
        finally:
            self._fence.step_waits = False


class _Writing:
    """``Fence.write``."""

    def __init__(self, fence: Fence, step: int) -> None:
        self._fence, self._step = fence, step

    def __enter__(self) -> None:
        self._fence._begin(self._step)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._fence._end(self._step, failed=kind is not None)


class Fence:
    """Counts ended steps. ``step`` is the last one; it may be read at any time."""

    def __init__(self) -> None:
        self._turn = HandoverLock()
        self._ended = threading.Condition()
        self._writing: int | None = None
        self._broken: int | None = None
        self._held, self._held_to_write = _Holding(self), _HoldingToWrite(self)
        self.step = 0
        self.step_waits = False
        """Whether a step waits for its turn: who has the turn then and can do with less of it should."""

    def begin_after(self, step: int) -> None:
        """Say that steps up to ``step`` have ended elsewhere (a resumed run). Before the first write."""
        with self._turn:
            if self.step:
                raise OutOfStep("the start", step, f"none: step {self.step} has ended here already")
            self.step = step

    def hold(self) -> AbstractContextManager[None]:
        """Keep others out: nobody writes and nobody else is served inside. Re-entrant, but not inside ``write``.

        Raises BrokenFence after a write that failed, RuntimeError inside a write or on the event loop's thread.
        """
        return self._held

    def hold_to_write(self) -> AbstractContextManager[None]:
        """The same for the one who will ``write`` inside. Others see that he waits (``step_waits``)."""
        return self._held_to_write

    def _enter(self) -> None:
        forbid_event_loop("Fence.hold")
        if self._turn.mine and self._writing is not None:
            raise RuntimeError(f"step {self._writing} is being written by this thread: no step's end can be seen here")
        self._turn.acquire()
        if self._broken is not None:
            self._turn.release()
            raise BrokenFence(self._broken)

    def at(self, call: Callable[[], Result]) -> Result:
        """Run ``call`` between two steps' writes, on this thread, and return its result. Any thread but the event
        loop's.
        """
        with self.hold():
            return call()

    def write(self, step: int) -> AbstractContextManager[None]:
        """Write the rows of ``step`` inside; it has ended when this returns. Raises OutOfStep unless it is the next
        one.

        An error inside breaks the fence for good: the rows are those of no step's end.
        """
        return _Writing(self, step)

    def _begin(self, step: int) -> None:
        self._enter()
        if step != self.step + 1:
            self._turn.release()
            raise OutOfStep("the write", step, f"step {self.step + 1}, as {self.step} was the last to end")
        self._writing = step

    def _end(self, step: int, failed: bool) -> None:
        self._writing = None
        with self._ended:
            if failed:
                self._broken = step
            else:
                self.step = step
            self._ended.notify_all()
        self._turn.release()

    def spoil(self, step: int) -> None:
        """Break the fence for good: ``step`` has ended, and not everyone who had to learn of it did."""
        with self._ended:
            self._broken = step
            self._ended.notify_all()

    def wait(self, step: int, timeout: float | None = None) -> bool:
        """Block until ``step`` has ended; False when ``timeout`` seconds passed first. Raises BrokenFence when it
        never will.
        """
        if self.step >= step:
            return True
        forbid_event_loop("Fence.wait")
        with self._ended:
            reached = self._ended.wait_for(lambda: self.step >= step or self._broken is not None, timeout)
        if self.step < step and self._broken is not None:
            raise BrokenFence(self._broken)
        return reached
