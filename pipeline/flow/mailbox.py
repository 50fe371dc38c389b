"""How a finished call gets from a lane's thread back to the event loop: one wake-up for all that finish before the
loop looks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import Any


class Job:
    """One call on its way through a lane.

    Whoever pops ``token`` owns it: the thread, to run it, or the waiter, to withdraw it.
    """

    __slots__ = ("args", "call", "error", "future", "mailbox", "queued_ns", "released", "result", "settled", "token")

    def __init__(self, call: Callable[..., Any], args: tuple[Any, ...], mailbox: Mailbox, queued_ns: int) -> None:
        self.call = call
        self.args = args
        self.mailbox = mailbox
        self.queued_ns = queued_ns
        self.future: asyncio.Future[Any] = mailbox.loop.create_future()
        self.released: asyncio.Future[None] | None = None
        self.settled = False
        self.token = [True]
        self.result: Any = None
        self.error: BaseException | None = None

    def claim(self) -> bool:
        """True for exactly one caller.

        ``list.pop`` is atomic under the interpreter's lock, so no other lock is needed.
        """
        try:
            return self.token.pop()
        except IndexError:
            return False

    def settle(self) -> None:
        """On the loop: give the result to whoever waits, and say that the thread is done with it."""
        self.settled = True
        if not self.future.done():
            if self.error is None:
                self.future.set_result(self.result)
            else:
                self.future.set_exception(self.error)
        if self.released is not None and not self.released.done():
            self.released.set_result(None)
        self.result = self.error = None

    async def wait_released(self) -> None:
        """Wait until the thread is done with the call, whatever cancels the waiter meanwhile.

        The caller raises afterwards.
        """
        if self.settled:
            return
        self.released = self.mailbox.loop.create_future()
        while not self.released.done():
            try:
                await asyncio.wait([self.released])
            except asyncio.CancelledError:
                continue


async def withdraw(jobs: Collection[Job]) -> None:
    """Take back the jobs that no thread has begun, then wait for the others to end. Nobody may await them any more."""
    begun = [job for job in jobs if not job.settled and not job.claim()]
    for job in jobs:
        # An error that nobody asks for would be reported as never retrieved.
        if not job.future.cancel() and not job.future.cancelled():
            job.future.exception()
    for job in begun:
        await job.wait_released()


class Mailbox:
    """The finished jobs of one event loop."""

    __slots__ = ("_posted", "finished", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.finished: deque[Job] = deque()
        self._posted = False

    def post(self, job: Job) -> None:
        """From a lane's thread: hand a finished job over."""
        self.finished.append(job)
        if self._posted:
            return
        self._posted = True
        try:
            self.loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            # The loop was closed under the call: nobody can wait for it any more.
            if not self.loop.is_closed():
                raise

    def _deliver(self) -> None:
        # Cleared first: a job posted from here on brings its own wake-up, one posted before is found below.
        self._posted = False
        finished = self.finished
        while finished:
            finished.popleft().settle()
