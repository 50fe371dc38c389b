"""Threads that give way: what nobody waits for runs in the time that others leave.

Linux keeps priorities per thread, and nobody needs rights to lower his own. Elsewhere nothing is done.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading


def give_way(nice: int) -> None:
    """Raise the calling thread's nice value to ``nice`` (0: leave it; 19: the least share of a busy processor)."""
    if nice > 0 and sys.platform == "linux":
        thread = threading.get_native_id()
        if os.getpriority(os.PRIO_PROCESS, thread) < nice:
            os.setpriority(os.PRIO_PROCESS, thread, nice)


def run_when_idle() -> int:
    """From now on the calling thread runs only when nobody else wants the processor. Returns its number, for ``run_like_others``.

    A nice thread that has begun is not interrupted for some milliseconds, whoever wakes up meanwhile; this one is, at once. But while
    others never rest, neither runs much, and whoever waits for a lock that it holds, Python's own too, does not either: see that it
    is noticed when that lasts.
    """
    thread = threading.get_native_id()
    if sys.platform == "linux":
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    return thread


def run_like_others(thread: int) -> None:
    """Take ``run_when_idle`` back, for a thread of this process: now, if the process has the right to, else not at all."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
