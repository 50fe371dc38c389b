"""Catches what blocks the event loop: a blocking call made on a thread whose loop is running raises, and is remembered.

The test fails even if the product swallows the exception. Nothing is timed. Use the fixture ``loop_guard``, or ``LoopGuard`` as a
context manager around a part of a test. Async tests that read a file themselves do so inside ``guard.allowed()``.
"""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import io
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PLACES: tuple[tuple[Any, str], ...] = (
    (time, "sleep"),
    (builtins, "open"),
    (io, "open"),
    *(
        (os, name)
        for name in (
            "open", "read", "write", "pread", "pwrite", "preadv", "pwritev", "fsync", "fdatasync", "ftruncate", "truncate",
            "rename", "replace", "remove", "unlink", "mkdir", "rmdir", "listdir", "scandir", "system", "waitpid",
        )
    ),
    *((socket.socket, name) for name in ("connect", "accept", "recv", "recv_into", "send", "sendall")),
    (subprocess.Popen, "wait"),
    (subprocess.Popen, "communicate"),
    (threading.Thread, "join"),
    (queue.Queue, "get"),
    (queue.Queue, "put"),
    (concurrent.futures.Future, "result"),
)  # fmt: skip


class BlockedLoop(AssertionError):
    """A blocking call on the event loop's thread."""


class LoopGuard:
    """On between ``__enter__`` and ``__exit__``; the latter raises BlockedLoop when anything was caught."""

    def __init__(self) -> None:
        self.caught: list[str] = []
        self._patch = pytest.MonkeyPatch()
        self._allowed = 0

    def __enter__(self) -> LoopGuard:
        for owner, name in PLACES:
            self._patch.setattr(owner, name, self._guarded(owner, name))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._patch.undo()
        if self.caught and error is None:
            raise BlockedLoop("\n".join(self.caught))

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let the test itself block."""
        self._allowed += 1
        try:
            yield
        finally:
            self._allowed -= 1

    def _guarded(self, owner: Any, name: str) -> Callable[..., Any]:
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if asyncio._get_running_loop() is not None and not self._allowed and _blocks(owner, args):
                caller = sys._getframe(1)
                if caller.f_globals.get("__name__", "").startswith("asyncio."):
                    # The loop itself, as when it joins its executor's threads before it closes.
                    return real(*args, **kwargs)
                where = f"{caller.f_code.co_filename}:{caller.f_lineno}"
                what = f"{getattr(owner, '__name__', owner)}.{name} on the event loop, from {where}"
                self.caught.append(what)
                raise BlockedLoop(what)
            return real(*args, **kwargs)

        return call


def _blocks(owner: Any, args: tuple[Any, ...]) -> bool:
    """Sockets that do not block, futures that are done and threads that have ended are no harm."""
    if owner is socket.socket:
        return bool(args[0].gettimeout() != 0)
    if owner is concurrent.futures.Future:
        return not args[0].done()
    if owner is threading.Thread:
        return bool(args[0].is_alive())
    return True


guarded_loop = LoopGuard
"""``with guarded_loop(): ...`` reads better where the guard itself is not needed."""


@pytest.fixture
def loop_guard() -> Iterator[LoopGuard]:
    """The guard around a whole test."""
    with LoopGuard() as guard:
        yield guard
