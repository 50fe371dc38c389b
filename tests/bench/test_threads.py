"""What each thread ran, by name."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from tools.bench.threads import per_step, thread_times

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a thread's times")


def test_threads_of_one_name_are_counted_together_and_what_they_ran_is_seen() -> None:
    def work() -> None:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        ran.wait()
        told.wait()

    ran, told = threading.Barrier(3), threading.Event()
    threads = [threading.Thread(target=work, name=name) for name in ("lane-busy-0", "lane-busy-1")]
    for thread in threads:
        thread.start()
    ran.wait()
    times = thread_times()
    told.set()
    for thread in threads:
        thread.join()
    assert times["busy.ran"] >= 0.1
    assert times["MainThread.ran"] > 0
    assert not any("lane-" in name for name in times)


def test_the_busiest_comes_first_and_the_idle_are_not_told() -> None:
    times = {"b.ran": 0.02, "b.waited": 0.01, "a.ran": 0.03, "a.waited": 0.0, "idle.ran": 0.0001, "idle.waited": 0.0}
    assert per_step(times, 0.04, 10) == "a 3.00 (0.00), b 2.00 (1.00); in all 5.0 in a step of 4.0"
