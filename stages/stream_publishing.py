"""Publishes in spite of a transport that fails: tries again while the run goes on, and for a bounded time at its end.

What is left then stays: the checkpoint at the end of the run has the rows, and ``backlog.json`` says from where on they are missing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pipeline.files import Files
from pipeline.flow.run_info import RunInfo
from pipeline.stream import Backlog, remove_backlog, save_backlog, seconds_of
from pipeline.stream.outlet import of_transport
from pipeline.stream.streamer import RowStreamer
from pipeline.wire import Transport, TransportError
from stages.steps import wait_at_most
from stages.stream_effort import tell
from stages.stream_options import StreamOptions
from stages.stream_outage import Outage

LOOK_S = 0.1
OnLane = Callable[..., Awaitable[Any]]
"""Runs a call on a lane: ``lane.run``."""


class Publishing:
    """``begin`` opens the stream, on a lane; it is called once, but again where the transport failed. The loop's, unless it says so."""

    def __init__(
        self,
        options: StreamOptions,
        streamer: RowStreamer,
        transports: Sequence[Transport],
        begin: Callable[[], None],
        report: dict[str, Any],
        run: RunInfo,
        files: Files,
        say: Callable[[str], None],
    ) -> None:
        self._streamer, self._transports, self._begin, self._report = streamer, transports, begin, report
        self._run, self._files, self._timeout, self._say = run, files, options.drain_timeout, say
        self._outage = Outage(report, options.on_failure, options.retry)
        self._beginning, self._begun = threading.Lock(), False
        self.ending = asyncio.Event()
        """The last step has ended."""
        self._over, self._gave_up = asyncio.Event(), asyncio.Event()
        self._is_whole = False

    async def open(self, run: OnLane, stopping: Callable[[], bool]) -> None:
        """A broker that is not there need not stop a run that has published nothing yet. One that goes on has to read first what was
        published: it waits for its broker, as long as the end of a run does and it is not to stop. A directory that cannot be written does
        not mend by waiting. Raises what ``begin`` and the transport raise.
        """
        gives_up_at, told = time.monotonic() + seconds_of(self._timeout), False
        while True:
            try:
                await run(self._publish, lambda: None)
                self._outage.over()
                return
            except (TransportError, OSError) as error:
                if self._transports[0].name == "file" or not self._outage.tolerates(error):
                    raise
                wait_s = self._outage.failed(error)
                if self._run.resumed is None:
                    return
                if time.monotonic() >= gives_up_at or stopping():
                    raise
                if not told:
                    self._say(f"waiting up to {self._timeout} for the stream, to read what was published: {error}")
                told = True
            again_at = time.monotonic() + wait_s
            while time.monotonic() < again_at and not stopping():  # noqa: ASYNC110 - nobody tells of a stop
                await asyncio.sleep(min(wait_s, LOOK_S))

    async def persist(self, run: OnLane, call: Callable[[], object]) -> None:
        """Have ``call`` publish, again and again until it did, or until the run ends: ``finish`` does what is left then. Raises as
        ``_attempt``.
        """
        while not self.ending.is_set() and (wait_s := await self._attempt(run, call)) is not None:
            await wait_at_most(self.ending, wait_s)

    async def finish(self, run: OnLane) -> None:
        """Publish what is left, in the time that ``watch`` gives; nothing trains any more. What is left then is written down."""
        while (wait_s := await self._attempt(run, self._streamer.finish)) is not None:
            await wait_at_most(self._gave_up, wait_s)
            if self._gave_up.is_set():
                break
        self._is_whole = wait_s is None
        self._over.set()

    def settle(self) -> None:
        """On a lane, behind ``finish``: write down what is left, or that nothing is."""
        if self._is_whole:
            remove_backlog(self._files, self._run.dir)
            return
        self._outage.gave_up()
        save_backlog(self._files, self._run.dir, self._backlog())

    async def watch(self, run: OnLane) -> None:
        """From the end of the last step on: when the time is over, end the call that may still wait for somebody."""
        await self.ending.wait()
        await wait_at_most(self._over, seconds_of(self._timeout))
        if not self._over.is_set():
            self._gave_up.set()
            await run(self.close)

    def close(self) -> None:
        """On a lane. May be called twice."""
        for transport in self._transports:
            transport.close()

    async def _attempt(self, run: OnLane, call: Callable[[], object]) -> float | None:
        """Have ``call`` publish. None: it did. Else the transport failed: after how many seconds to try again.

        Raises what is not to be tolerated, and what is no failure of the transport.
        """
        try:
            await run(self._publish, call)
        except (TransportError, OSError) as error:
            is_the_transports = of_transport(error) or not self._begun
            if not (is_the_transports and self._outage.tolerates(error)):
                raise
            return self._outage.failed(error)
        finally:
            self._report["lag_steps"] = max(0, self._streamer.changed.last_step - self._streamer.committed_step)
            tell(self._streamer, self._report)
        self._outage.over()
        return None

    def _publish(self, call: Callable[[], object]) -> None:
        """On a lane."""
        with self._beginning:
            if not self._begun:
                self._begin()
                self._begun = True
        call()

    def _backlog(self) -> Backlog:
        streamer, changed = self._streamer, self._streamer.changed
        reason = self._outage.last_error or f"not all was published within {self._timeout}"
        last = max(changed.last_step, streamer.committed_step)
        return Backlog(streamer.committed, streamer.committed_step, last, changed.count, reason)
