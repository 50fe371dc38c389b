"""The writing thread does what it is told, in order; when it fails, nobody waits for it any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.rowlog.log import LogClosed, LogFailed
from pipeline.rowlog.log.write_behind import WriteBehind

DEADLINE_S = 30


@pytest.fixture
def writer() -> Iterator[WriteBehind]:
    writer = WriteBehind("/disk", limit_bytes=100)
    writer.start()
    yield writer
    writer.close()


def breaking(error: BaseException) -> Callable[[], None]:
    def task() -> None:
        raise error

    return task


def test_tasks_run_in_the_order_in_which_they_came(writer: WriteBehind) -> None:
    done: list[int] = []
    for number in range(200):
        writer.add(lambda number=number: done.append(number), 10)  # type: ignore[misc]
    writer.drain()
    assert done == list(range(200))
    assert writer.written_bytes == 2000


def test_who_brings_more_waits_until_no_more_than_the_limit_waits(writer: WriteBehind) -> None:
    gate, entered = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        gate.wait(DEADLINE_S)

    writer.add(hold, 60)
    writer.wait_for_room()
    writer.add(lambda: None, 41)
    entered.wait(DEADLINE_S)
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(writer.wait_for_room)
        with pytest.raises(TimeoutError):
            waiting.result(0.05)
        gate.set()
        waiting.result(DEADLINE_S)


def test_when_a_task_fails_everyone_is_told_and_nothing_that_follows_is_done(writer: WriteBehind) -> None:
    gate, done = threading.Event(), []

    def fail() -> None:
        gate.wait(DEADLINE_S)
        raise OSError(28, "no space", "/disk/x.seg")

    writer.add(fail, 200)
    writer.add(lambda: done.append(1))
    with ThreadPoolExecutor(3) as others:
        waiting = [others.submit(call) for call in (writer.wait_for_room, writer.drain, writer.drain)]
        gate.set()
        for one in waiting:
            with pytest.raises(LogFailed, match=r"the row log in /disk stopped writing: .*x\.seg") as caught:
                one.result(DEADLINE_S)
            assert isinstance(caught.value.__cause__, OSError)
    for call in (writer.wait_for_room, writer.drain, writer.check):
        with pytest.raises(LogFailed):
            call()
    writer.add(lambda: done.append(2))
    writer.close()
    assert done == []


def test_the_first_failure_is_the_one_that_is_told(writer: WriteBehind) -> None:
    writer.fail(ValueError("first"))
    writer.fail(ValueError("second"))
    with pytest.raises(LogFailed, match="first"):
        writer.drain()
    writer.add(breaking(ValueError("third")))
    with pytest.raises(LogFailed, match="first"):
        writer.drain()


def test_after_a_failure_elsewhere_nothing_more_is_written(writer: WriteBehind) -> None:
    done: list[int] = []
    writer.fail(ValueError("elsewhere"))
    writer.add(lambda: done.append(1))
    writer.close()
    assert done == []


def test_closing_ends_behind_what_was_queued_and_refuses_the_rest() -> None:
    writer, done = WriteBehind("/disk", 100), []
    for number in range(50):
        writer.add(lambda number=number: done.append(number))  # type: ignore[misc]
    writer.start()
    writer.close()
    writer.close()
    assert done == list(range(50))
    with pytest.raises(LogClosed, match="/disk"):
        writer.add(lambda: None)
    with pytest.raises(LogClosed):
        writer.drain()


def test_a_task_may_queue_another_while_the_log_is_closed() -> None:
    """As the footer of a segment that nobody wants any more leads to its removal."""
    writer, done = WriteBehind("/disk", 100), []
    writer.add(lambda: writer.add(lambda: done.append(1)))
    with writer._changed:
        writer._closing = True
    writer.start()
    writer.close()
    writer.check()
    assert done == [1]


def test_one_that_was_not_started_can_be_closed() -> None:
    WriteBehind("/disk", 1).close()
