"""SIGINT and SIGTERM during a run, and only then: the handlers of before come back."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HANDLED = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def handled_signals(on_signal: Callable[[str], None]) -> Iterator[None]:
    """Call ``on_signal`` on the loop with the name of each signal that comes. Main thread only."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in HANDLED}
    for number in HANDLED:
        loop.add_signal_handler(number, on_signal, number.name)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            if handler is not None:
                signal.signal(number, handler)
