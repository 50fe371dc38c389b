"""A named thread that works through calls in order, for those who have no event loop: who calls waits, or comes back for the result."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class Lane:
    """One thread. What a call that nobody waits for raises is raised by the next ``run``, once."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._left: Future[Any] | None = None

    def run(self, call: Callable[..., Result], *args: Any) -> Result:
        """Have the lane call it, behind all that was handed over before, and wait."""
        future = self._pool.submit(call, *args)
        try:
            return future.result()
        finally:
            self._raise_left()

    def hand_over(self, call: Callable[..., Any], *args: Any) -> None:
        """Have the lane call it; nobody waits."""
        self._raise_left_if_done()
        before = self._left
        self._left = self._pool.submit(_after, before, call, *args)

    def _raise_left_if_done(self) -> None:
        if self._left is not None and self._left.done():
            self._raise_left()

    def _raise_left(self) -> None:
        left, self._left = self._left, None
        if left is not None:
            left.result()

    def close(self) -> None:
        """Finish what was handed over, and end the thread. May be called twice. Raises nothing."""
        self._pool.shutdown(wait=True)


def _after(before: Future[Any] | None, call: Callable[..., Any], *args: Any) -> None:
    """What failed before is passed on: then nothing more is done."""
    if before is not None:
        before.result()
    call(*args)
