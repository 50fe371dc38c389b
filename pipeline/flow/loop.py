"""Runs a coroutine on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_loop(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Make the coroutine and run it to its end on a new uvloop loop, which is closed behind it."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(make())
