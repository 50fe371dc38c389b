"""Lanes: named threads, or small groups of threads, where blocking work runs while the loop goes on.

Rules.

1. Calls on a lane start in the order in which ``run`` was called. On a lane of one thread they also end in that order.
2. A cancelled ``run`` withdraws a call that has not started, and otherwise waits for it to end before it raises: what
   a call uses is never freed under it.
3. Threads are not daemons: they end in ``close``, after the calls queued before it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic, perf_counter_ns
from types import TracebackType
from typing import Any

from pipeline.flow.errors import LaneError
from pipeline.flow.mailbox import Job, Mailbox, withdraw
from pipeline.flow.perturb import Perturb
from pipeline.flow.priority import give_way


@dataclass(frozen=True, slots=True)
class LaneOptions:
    """``start`` is called once on each thread of the lane before its first call: to set Numba's or torch's thread
    count, say. ``nice``: how far the threads give way to others (``priority``).
    """

    threads: int = 1
    start: Callable[[], None] | None = None
    nice: int = 0


@dataclass(frozen=True, slots=True)
class LaneStats:
    """``busy_s`` is the time in calls and ``queue_s`` the time calls waited for a thread, summed over the lane's
    threads.
    """

    name: str
    threads: int
    calls: int
    busy_s: float
    queue_s: float


class ThreadLane:
    """One named lane; made by ``Lanes``. Its threads start with it."""

    def __init__(self, name: str, options: LaneOptions, owner: Lanes) -> None:
        if options.threads < 1:
            raise LaneError(name, f"{options.threads} threads; the least is 1")
        self.name = name
        self.options = options
        self._owner = owner
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._tallies = [_Tally() for _ in range(options.threads)]
        self._threads = [
            threading.Thread(target=self._work, args=(tally,), name=f"lane-{name}-{number}")
            for number, tally in enumerate(self._tallies)
        ]
        self._closed = False
        for thread in self._threads:
            thread.start()

    async def run(self, call: Callable[..., Any], *args: Any) -> Any:
        """Run ``call(*args)`` on the lane and return its result, or raise what it raised."""
        job = self.submit(call, *args)
        try:
            return await job.future
        except asyncio.CancelledError:
            await withdraw([job])
            raise

    def submit(self, call: Callable[..., Any], *args: Any) -> Job:
        """Queue ``call(*args)``. Whoever submits awaits ``job.future``, or withdraws the job before it leaves."""
        if self._closed:
            raise LaneError(self.name, "is closed; it runs no more calls")
        job = Job(call, args, self._owner.mailbox(), perf_counter_ns())
        self._jobs.put(job)
        return job

    def stats(self) -> LaneStats:
        """A snapshot. A call that is running counts when it has ended."""
        tallies = self._tallies
        return LaneStats(
            name=self.name,
            threads=len(tallies),
            calls=sum(tally.calls for tally in tallies),
            busy_s=sum(tally.busy_ns for tally in tallies) / 1e9,
            queue_s=sum(tally.queue_ns for tally in tallies) / 1e9,
        )

    def stop(self) -> None:
        """Let each thread end behind the calls queued so far. Returns at once."""
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._jobs.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the threads. Raises LaneError, naming the call, when one is still running after ``timeout_s``."""
        end = monotonic() + timeout_s
        for thread, tally in zip(self._threads, self._tallies, strict=True):
            thread.join(max(0.0, end - monotonic()))
            if thread.is_alive():
                call = getattr(tally.running, "__qualname__", repr(tally.running))
                raise LaneError(self.name, f"thread {thread.name} is still in {call} after {timeout_s} s")

    def _work(self, tally: _Tally) -> None:
        failed = self._start()
        get = self._jobs.get
        while (job := get()) is not None:
            if job.claim():
                self._run_job(job, tally, failed)
                job.mailbox.post(job)
            # Not kept while the thread waits for the next: a job holds a batch.
            del job

    def _start(self) -> BaseException | None:
        try:
            give_way(self.options.nice)
            if self.options.start is not None:
                self.options.start()
        except BaseException as error:
            return error
        return None

    def _run_job(self, job: Job, tally: _Tally, failed: BaseException | None) -> None:
        begin = perf_counter_ns()
        tally.running = job.call
        try:
            if failed is not None:
                raise LaneError(self.name, f"its start-up failed: {failed!r}") from failed
            if self._owner.perturb is not None:
                self._owner.perturb.block(f"lane {self.name}")
            job.result = job.call(*job.args)
        except (StopIteration, asyncio.CancelledError) as error:
            # A future cannot carry the one, and the other would look like the waiter's own cancellation.
            job.error = RuntimeError(f"lane {self.name!r}: the call raised {type(error).__name__}")
            job.error.__cause__ = error
        except BaseException as error:
            job.error = error
        tally.running = None
        tally.calls += 1
        tally.queue_ns += begin - job.queued_ns
        tally.busy_ns += perf_counter_ns() - begin


class _Tally:
    """What one thread counts; only that thread writes it."""

    __slots__ = ("busy_ns", "calls", "queue_ns", "running")

    def __init__(self) -> None:
        self.calls = 0
        self.busy_ns = 0
        self.queue_ns = 0
        self.running: Callable[..., Any] | None = None


class Lanes:
    """The lanes of a process, by name.

    A lane that was not declared starts with one thread when it is first asked for.
    """

    def __init__(self, options: Mapping[str, LaneOptions | int] | None = None) -> None:
        """``options`` by lane name; a plain number is a number of threads."""
        declared = (options or {}).items()
        self._options = {name: LaneOptions(given) if isinstance(given, int) else given for name, given in declared}
        self._lanes: dict[str, ThreadLane] = {}
        self._mailbox: Mailbox | None = None
        self._closed = False
        self.perturb: Perturb | None = None

    def get(self, name: str) -> ThreadLane:
        """The lane of that name, started if need be. Raises LaneError after ``close``."""
        lane = self._lanes.get(name)
        if lane is None:
            if self._closed:
                raise LaneError(name, "the lanes are closed; none can be started")
            lane = self._lanes[name] = ThreadLane(name, self._options.get(name, LaneOptions()), self)
        return lane

    def mailbox(self) -> Mailbox:
        """The running loop's mailbox."""
        loop = asyncio.get_running_loop()
        if self._mailbox is None or self._mailbox.loop is not loop:
            self._mailbox = Mailbox(loop)
        return self._mailbox

    def stats(self) -> dict[str, LaneStats]:
        """A snapshot of every lane that was started."""
        return {name: lane.stats() for name, lane in self._lanes.items()}

    def close(self, timeout_s: float = 10.0) -> None:
        """End all threads and join them. Blocks for up to ``timeout_s`` in all, so not on a loop that others need.

        Raises LaneError naming the first lane and call that did not end in time; the other lanes are joined all the
        same.
        """
        self._closed = True
        end = monotonic() + timeout_s
        for lane in self._lanes.values():
            lane.stop()
        first: LaneError | None = None
        for lane in self._lanes.values():
            try:
                lane.join(max(0.0, end - monotonic()))
            except LaneError as error:
                first = first or error
        if first is not None:
            raise first

    async def aclose(self, timeout_s: float = 10.0) -> None:
        """The same without blocking the loop, which may have to deliver results meanwhile."""
        await asyncio.to_thread(self.close, timeout_s)

    def __enter__(self) -> Lanes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Lanes:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
