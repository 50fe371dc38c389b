"""Threads that give way: what nobody waits for runs in the time that others leave."""

from __future__ import annotations

import os
import sys
import threading


def give_way(nice: int) -> None:
    """Raise the calling thread's nice value to ``nice`` (0: leave it; 19: run when nobody else wants the processor).

    Linux keeps one per thread, and whoever starts the thread needs no rights for it. Elsewhere this does nothing.
    """
    if nice > 0 and sys.platform == "linux":
        thread = threading.get_native_id()
        if os.getpriority(os.PRIO_PROCESS, thread) < nice:
            os.setpriority(os.PRIO_PROCESS, thread, nice)
