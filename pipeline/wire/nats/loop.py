"""An event loop on a thread of its own, for a client that knows asyncio only. The interface of transports blocks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from pipeline.wire.errors import TransportClosed

Value = TypeVar("Value")
GOODBYES = 8


class LoopThread:
    """Started by the first ``run``. A daemon, so that a program which forgot to close it can end; ``close`` waits for its end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Do ``work`` on the loop and wait for it. Raises what it raises, and TransportClosed."""
        with self._lock:
            if self._closed:
                work.close()
                raise TransportClosed(f"{self._name}: the transport was closed")
            loop = self._loop or self._start()
            future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except CancelledError:
            raise TransportClosed(f"{self._name}: the transport was closed") from None

    def call(self, what: Any) -> None:
        """Call ``what()`` on the loop soon; nothing where it does not run."""
        with self._lock:
            if self._loop is not None and not self._closed:
                self._loop.call_soon_threadsafe(what)

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(loop,), name=self._name, daemon=True)
        self._thread.start()
        return loop

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        loop.run_forever()
        try:
            loop.run_until_complete(_cancel_all())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def close(self) -> None:
        """What still runs is cancelled. May be called twice."""
        with self._lock:
            self._closed = True
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await _turns()
    # An encrypted connection that was closed waits for its peer to say goodbye, for half a minute; nobody waits for that here. The loop
    # knows its connections by an attribute of its own; where it has none, they are left to the collector.
    for transport in list(getattr(asyncio.get_running_loop(), "_transports", {}).values()):
        transport.abort()
    await _turns()


async def _turns() -> None:
    """Connections that were closed are let go in the loop's next turns."""
    for _ in range(GOODBYES):
        await asyncio.sleep(0)
