"""Lanes: order, threads, errors, cancellation, closing."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator

import pytest

from pipeline.flow import LaneError, LaneOptions, Lanes
from pipeline.flow.mailbox import Job, Mailbox, withdraw
from tests.flow.samples import until


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    with Lanes() as made:
        yield made


async def test_a_call_runs_on_the_lanes_own_named_thread_and_returns_its_result(lanes: Lanes) -> None:
    name = await lanes.get("compute").run(lambda: threading.current_thread().name)
    assert name == "lane-compute-0"
    assert await lanes.get("compute").run(divmod, 7, 2) == (3, 1)


async def test_a_name_means_one_lane(lanes: Lanes) -> None:
    assert lanes.get("a") is lanes.get("a")
    assert lanes.get("a") is not lanes.get("b")


async def test_calls_on_one_thread_run_in_the_order_they_were_made(lanes: Lanes) -> None:
    seen: list[int] = []
    await asyncio.gather(*(lanes.get("a").run(seen.append, number) for number in range(200)))
    assert seen == list(range(200))


async def test_what_a_call_raises_is_raised_to_its_caller_and_the_lane_goes_on(lanes: Lanes) -> None:
    with pytest.raises(ZeroDivisionError):
        await lanes.get("a").run(divmod, 1, 0)
    assert await lanes.get("a").run(divmod, 1, 1) == (1, 0)


@pytest.mark.parametrize("kind", [StopIteration, asyncio.CancelledError])
async def test_exceptions_that_a_future_cannot_carry_arrive_as_runtime_errors(
    lanes: Lanes, kind: type[BaseException]
) -> None:
    def fail() -> None:
        raise kind

    with pytest.raises(RuntimeError, match=kind.__name__):
        await lanes.get("a").run(fail)


async def test_several_threads_run_calls_at_once() -> None:
    async with Lanes({"read": 3}) as lanes:
        together = threading.Barrier(3)
        await asyncio.gather(*(lanes.get("read").run(together.wait) for _ in range(3)))


async def test_start_runs_once_on_each_thread_before_its_first_call() -> None:
    started: list[str] = []
    options = LaneOptions(threads=2, start=lambda: started.append(threading.current_thread().name))
    async with Lanes({"a": options}) as lanes:
        together = threading.Barrier(2)
        await asyncio.gather(*(lanes.get("a").run(together.wait) for _ in range(2)))
    assert sorted(started) == ["lane-a-0", "lane-a-1"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a nice value per thread")
async def test_a_lane_gives_way_without_anyone_else_doing_so() -> None:
    def nice() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    async with Lanes({"background": LaneOptions(nice=19)}) as lanes:
        assert await lanes.get("background").run(nice) == 19
        assert await lanes.get("other").run(nice) == nice() < 19


async def test_a_start_that_fails_makes_every_call_say_so() -> None:
    def fail() -> None:
        raise OSError("no such device")

    async with Lanes({"a": LaneOptions(start=fail)}) as lanes:
        for _ in range(2):
            with pytest.raises(LaneError, match=r"'a': its start-up failed.*no such device"):
                await lanes.get("a").run(divmod, 1, 1)


async def test_a_cancelled_caller_waits_until_the_running_call_has_ended(lanes: Lanes) -> None:
    running, go, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        running.set()
        go.wait()
        ended.set()

    task = asyncio.create_task(lanes.get("a").run(call))
    await until(running.is_set)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_cancelled_caller_withdraws_a_call_that_has_not_started(lanes: Lanes) -> None:
    running, go = threading.Event(), threading.Event()
    seen: list[str] = []

    def call() -> None:
        running.set()
        go.wait()

    first = asyncio.create_task(lanes.get("a").run(call))
    second = asyncio.create_task(lanes.get("a").run(seen.append, "second"))
    await until(running.is_set)
    second.cancel()
    await until(second.done)
    go.set()
    await first
    await lanes.get("a").run(seen.append, "third")
    assert seen == ["third"]


async def test_cancelling_at_any_moment_never_hangs_and_never_runs_a_call_twice(lanes: Lanes) -> None:
    seen: list[int] = []
    tasks = []
    for number in range(300):
        tasks.append(asyncio.create_task(lanes.get("a").run(seen.append, number)))
        for _ in range(number % 4):
            await asyncio.sleep(0)
        tasks[-1 - number % 3 if number > 3 else -1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert len(results) == 300
    assert sorted(set(seen)) == sorted(seen)
    assert {number for number, result in enumerate(results) if result is None} <= set(seen)


def test_close_ends_every_thread_behind_the_calls_queued_before_it() -> None:
    lanes = Lanes({"a": 2})
    asyncio.run(lanes.get("a").run(divmod, 1, 1))
    lanes.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane-")]
    with pytest.raises(LaneError, match="closed"):
        asyncio.run(lanes.get("a").run(divmod, 1, 1))
    with pytest.raises(LaneError, match="closed"):
        lanes.get("b")


def test_close_names_the_call_that_is_stuck_and_still_ends_the_other_lanes() -> None:
    lanes = Lanes()
    running, go = threading.Event(), threading.Event()

    def stuck_call() -> None:
        running.set()
        go.wait()

    async def main() -> None:
        task = asyncio.create_task(lanes.get("a").run(stuck_call))
        await lanes.get("b").run(running.wait)
        with pytest.raises(LaneError, match=r"'a'.*still in .*stuck_call"):
            await asyncio.to_thread(lanes.close, 0.01)
        go.set()
        await task

    asyncio.run(main())
    lanes.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane-")]


async def test_figures_count_calls_and_time(lanes: Lanes) -> None:
    for _ in range(5):
        await lanes.get("a").run(sum, range(1000))
    stats = lanes.stats()["a"]
    assert (stats.name, stats.threads, stats.calls) == ("a", 1, 5)
    assert stats.busy_s > 0
    assert stats.queue_s > 0


def test_one_lane_serves_one_loop_after_the_other(lanes: Lanes) -> None:
    for _ in range(3):
        assert asyncio.run(lanes.get("a").run(divmod, 7, 2)) == (3, 1)


def test_a_lane_of_no_threads_is_refused() -> None:
    with Lanes({"a": 0}) as lanes, pytest.raises(LaneError, match="0 threads"):
        lanes.get("a")


async def test_withdrawing_several_jobs_ends_also_when_their_threads_end_all_at_once() -> None:
    mailbox = Mailbox(asyncio.get_running_loop())
    jobs = [Job(divmod, (1, 1), mailbox, 0) for _ in range(3)]
    assert all(job.claim() for job in jobs)
    task = asyncio.create_task(withdraw(jobs))
    await asyncio.sleep(0)
    assert not task.done()
    for job in jobs:
        job.settle()
    await task
