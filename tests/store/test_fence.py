"""Steps write one after the other, and whoever waits is served between two of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from pipeline.store import BrokenFence, Fence, OutOfStep

DEADLINE_S = 60


def in_thread(call: Callable[[], object]) -> Future[object]:
    """Run ``call`` on a thread of its own."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return future


def test_steps_end_one_after_the_other() -> None:
    fence = Fence()
    for step in (1, 2, 3):
        with fence.write(step):
            assert fence.step == step - 1
        assert fence.step == step


@pytest.mark.parametrize("step", [0, 1, 3])
def test_a_step_out_of_order_is_refused_and_breaks_nothing(step: int) -> None:
    fence = Fence()
    with fence.write(1):
        pass
    with pytest.raises(OutOfStep, match=f"write of step {step} is out of order: expected step 2"), fence.write(step):
        pass
    with fence.write(2):
        pass
    assert fence.step == 2


def test_a_resumed_run_goes_on_behind_its_last_step() -> None:
    fence = Fence()
    fence.begin_after(41)
    with fence.write(42):
        pass
    with pytest.raises(OutOfStep):
        fence.begin_after(50)


def test_nobody_is_served_while_a_step_writes() -> None:
    fence, seen = Fence(), []
    asked = threading.Event()

    def ask() -> None:
        asked.set()
        seen.append(fence.at(lambda: fence.step))

    with fence.write(1):
        future = in_thread(ask)
        assert asked.wait(DEADLINE_S)
        assert not seen
    future.result(DEADLINE_S)
    assert seen == [1]


def test_one_who_waits_is_served_at_the_next_fence_though_training_never_pauses() -> None:
    """The compute lane asks for its next turn at once; it must not overtake one who asked during the step before."""
    fence = Fence()
    for first in range(1, 400, 2):
        waiting = threading.Event()
        with fence.write(first):
            future = in_thread(lambda waiting=waiting: (waiting.set(), fence.at(lambda: fence.step))[1])  # type: ignore[misc]
            waiting.wait(DEADLINE_S)
            while not fence._turn._waiting:  # he has asked, and is about to queue
                pass
        with fence.write(first + 1):
            pass
        assert future.result(DEADLINE_S) == first


def test_turns_come_in_the_order_they_were_asked_for() -> None:
    fence, order = Fence(), []
    futures = []
    with fence.write(1):
        for number in range(8):
            futures.append(in_thread(lambda number=number: fence.at(lambda: order.append(number))))  # type: ignore[misc]
            while len(fence._turn._waiting) <= number:
                pass
    for future in futures:
        future.result(DEADLINE_S)
    assert order == list(range(8))


def test_a_call_at_the_fence_may_ask_for_the_fence_again() -> None:
    fence = Fence()
    assert fence.at(lambda: fence.at(lambda: fence.step)) == 0
    with fence.hold():
        with fence.write(1):
            pass
        assert fence.at(lambda: fence.step) == 1


def test_a_step_that_writes_cannot_be_looked_at_by_its_own_thread() -> None:
    fence = Fence()
    with fence.write(1), pytest.raises(RuntimeError, match="step 1 is being written"):
        fence.at(lambda: None)


def test_an_error_at_the_fence_is_raised_and_the_fence_goes_on() -> None:
    fence = Fence()
    with pytest.raises(KeyError):
        fence.at(dict[str, int]().popitem)
    with fence.write(1):
        pass
    assert fence.step == 1


def test_a_write_that_fails_breaks_the_fence_for_everyone() -> None:
    fence = Fence()
    waiting = in_thread(lambda: fence.wait(1))
    with pytest.raises(KeyError), fence.write(1):
        raise KeyError
    with pytest.raises(BrokenFence, match="step 1 failed"):
        waiting.result(DEADLINE_S)
    with pytest.raises(BrokenFence):
        fence.at(lambda: None)
    with pytest.raises(BrokenFence), fence.write(1):
        pass
    assert fence.step == 0


def test_wait_returns_when_the_step_has_ended_and_says_when_it_has_not() -> None:
    fence = Fence()
    assert fence.wait(0)
    assert not fence.wait(1, timeout=0)
    future = in_thread(lambda: fence.wait(2))
    for step in (1, 2):
        with fence.write(step):
            assert not future.done()
    assert future.result(DEADLINE_S) is True


async def test_the_event_loop_is_refused() -> None:
    fence = Fence()
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="event loop"):
        fence.at(lambda: None)
    with pytest.raises(RuntimeError, match="event loop"):
        fence.wait(1)
