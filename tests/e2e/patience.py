"""Waiting for what other threads and processes bring about, with an end to the patience."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PATIENCE_S = 120.0


def until(condition: Callable[[], bool], alive: Callable[[], bool] = lambda: True, pause_s: float = 0.02) -> None:
    """Return when ``condition`` holds. Fails when it does not happen, or once ``alive`` says that it cannot any more."""
    pause, deadline = threading.Event(), time.monotonic() + PATIENCE_S
    while not condition():
        assert alive(), "whoever was to bring it about has ended"
        assert time.monotonic() < deadline, "it did not happen"
        pause.wait(pause_s)
