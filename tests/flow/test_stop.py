"""Stopping a run: between two items, at any moment, by signals, and in a hurry."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.flow import Aborted, Many, Stage
from tests.flow.samples import Inline, Numbers, OnLane, Run, graph_of, until, variant

ROOT = Path(__file__).parents[2]


async def _drain_loudly(_self: Stage) -> Many:
    raise AssertionError("drained")


@pytest.mark.parametrize("queue", [{"items": 1}, {"items": 4, "bytes": None}])
def test_a_stop_lets_what_is_in_flight_run_through_and_drains_nobody(queue: dict[str, Any]) -> None:
    async def beside(run: Run) -> None:
        await until(lambda: len(run.kept) > 20)
        run.runner.request_stop()

    nodes: dict[str, Any] = {
        "numbers": {"count": 1 << 60},
        "p": {"queue": queue},
        "on_lane": {"queue": queue},
        "keep": {"queue": queue},
    }
    nodes["numbers"]["use"] = "loud"
    run = Run(graph_of(nodes, loud=variant(Numbers, drain=_drain_loudly), p=variant(Inline, drain=_drain_loudly)))
    report = run.go(beside)
    assert report.outcome == "interrupt"
    assert run.kept == [number + 2 for number in range(1, len(run.kept) + 1)]
    assert [(m.reason, m.states["numbers"]) for m in run.markers] == [("interrupt", len(run.kept))]


def test_a_source_that_waits_is_stopped_and_its_cursor_stands_behind_its_last_item() -> None:
    async def beside(run: Run) -> None:
        await until(lambda: len(run.kept) == 3)
        run.runner.request_stop("told to")

    run = Run(graph_of({"waiting": {"count": 3}, "keep": {}}))
    report = run.go(beside)
    assert report.outcome == "told to"
    assert [(m.reason, m.states["waiting"]) for m in run.markers] == [("told to", 3)]


def test_a_stop_before_the_first_item_ends_with_a_marker_alone() -> None:
    run = Run(graph_of({"numbers": {}, "keep": {}}))
    run.runner.request_stop()
    assert run.go().outcome == "interrupt"
    assert run.kept == []
    assert [m.reason for m in run.markers] == ["interrupt"]


def test_a_source_may_ask_for_the_stop_itself_without_losing_its_item() -> None:
    run: Run

    class Telling(Numbers):
        async def items(self) -> AsyncIterator[int]:
            async for number in super().items():
                if number == 5:
                    run.runner.request_stop()
                yield number

    run = Run(graph_of({"telling": {}, "keep": {"queue": {"items": 1}}}, telling=Telling))
    run.go()
    assert run.kept == [1, 2, 3, 4, 5]
    assert run.markers[-1].states["telling"] == 5


@pytest.mark.parametrize("seed", range(30))
def test_a_stop_at_any_moment_loses_no_item_and_a_resumed_run_doubles_none(seed: int) -> None:
    chance = random.Random(seed)

    class Uneven(Numbers):
        async def items(self) -> AsyncIterator[int]:
            while self.last < self.options.count:
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
                self.last += 1
                yield self.last

    async def beside(run: Run) -> None:
        for _ in range(chance.randrange(60)):
            await asyncio.sleep(0)
        run.runner.request_stop()

    queue = {"queue": {"items": chance.choice([1, 4]), "bytes": chance.choice([None, 1000])}}
    nodes: dict[str, Any] = {"uneven": {"count": 30}, "on_lane": queue, "keep": queue}
    kept: list[int] = []
    states: dict[str, Any] = {}
    while len(kept) < 30:
        run = Run(graph_of(nodes, uneven=Uneven), restore=states)
        run.go(beside)
        states = run.markers[-1].states
        kept += run.kept
        assert states["uneven"] == len(kept)
    assert kept == list(range(2, 32))


def test_an_abort_ends_at_once_and_still_closes_the_stages() -> None:
    closed: list[BaseException | None] = []

    class Stuck(Inline):
        async def process(self, item: int) -> int:
            await asyncio.Event().wait()
            return item

        async def close(self, error: BaseException | None) -> None:
            closed.append(error)

    async def beside(run: Run) -> None:
        await until(lambda: run.runner.progress().items > 0)
        run.runner.abort("enough")

    run = Run(graph_of({"numbers": {}, "stuck": {}}, stuck=Stuck))
    with pytest.raises(Aborted, match="enough"):
        run.go(beside)
    assert [type(error) for error in closed] == [Aborted]
    assert run.runner.progress().outcome == "failed"


def test_an_abort_waits_for_the_call_that_a_lane_is_in() -> None:
    running, go = threading.Event(), threading.Event()
    ended: list[bool] = []

    def work(_self: Stage, item: int) -> int:
        running.set()
        go.wait()
        ended.append(True)
        return item

    async def beside(run: Run) -> None:
        await until(running.is_set)
        run.runner.abort("enough")
        asyncio.get_running_loop().call_later(0.01, go.set)
        await asyncio.Event().wait()

    async def close(_self: Stage, _error: BaseException | None) -> None:
        assert ended == [True]

    with pytest.raises(Aborted) as caught:
        Run(graph_of({"numbers": {}, "p": {}}, p=variant(OnLane, work=work, close=close))).go(beside)
    assert not hasattr(caught.value, "__notes__")


def test_an_abort_withdraws_the_items_that_a_lane_has_not_begun() -> None:
    running, go = threading.Event(), threading.Event()
    begun: list[int] = []

    def work(_self: Stage, item: int) -> int:
        begun.append(item)
        running.set()
        go.wait()
        return item

    async def beside(run: Run) -> None:
        await until(running.is_set)
        run.runner.abort("enough")
        asyncio.get_running_loop().call_later(0.01, go.set)
        await asyncio.Event().wait()

    queue = {"queue": {"items": 64, "bytes": None}}
    with pytest.raises(Aborted):
        Run(graph_of({"numbers": {"count": 60}, "it": queue, "keep": queue}, it=variant(OnLane, work=work))).go(beside)
    assert begun == [1]


def test_a_drain_that_takes_too_long_is_aborted_and_names_who_was_busy() -> None:
    async def process(_self: Stage, item: int) -> int:
        await asyncio.Event().wait()
        return item

    async def beside(run: Run) -> None:
        await until(lambda: run.runner.progress().items > 0)
        run.runner.request_stop()

    run = Run(graph_of({"numbers": {}, "hung": {}}, hung=variant(Inline, process=process)), drain_timeout_s=0.01)
    with pytest.raises(Aborted, match=r"not drained 0.01 s after the stop \(interrupt\); busy: .*hung"):
        run.go(beside)


def test_cancelling_the_task_of_a_run_closes_its_stages_and_raises_the_cancellation() -> None:
    closed: list[Any] = []

    async def close(_self: Stage, error: BaseException | None) -> None:
        closed.append(error)

    run = Run(graph_of({"waiting": {}, "p": {}}, p=variant(Inline, close=close)))

    async def main() -> None:
        task = asyncio.create_task(run.runner.run())
        await asyncio.sleep(0)
        await until(lambda: run.runner.progress().stages["p"].items_in == 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert [type(error) for error in closed] == [asyncio.CancelledError]


PROGRAM = """
import asyncio, signal, sys
from pipeline.flow import Aborted
from tests.flow.samples import Inline, Run, graph_of, variant

async def process(self, item):
    print("item", item, flush=True)
    if item == 3 and sys.argv[1] == "hang":
        await asyncio.Event().wait()
    return item

async def close(self, error):
    print("closed", type(error).__name__, flush=True)

def before(number, frame):
    raise AssertionError("not this one")

signal.signal(signal.SIGTERM, before)
run = Run(graph_of({"waiting": {"count": 3}, "p": {}}, p=variant(Inline, process=process, close=close)), handle_signals=True)
try:
    report = run.go()
    print("outcome", report.outcome, run.markers[-1].reason, run.markers[-1].states["waiting"], flush=True)
except Aborted as error:
    print("aborted", error, flush=True)
print("restored", signal.getsignal(signal.SIGTERM) is before, flush=True)
"""


def _start(mode: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, mode], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )
    assert process.stdout is not None
    for number in (1, 2, 3):
        assert process.stdout.readline() == f"item {number}\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_interrupt_with_a_marker_and_a_clean_end(number: signal.Signals) -> None:
    with _start("wait") as process:
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert output.splitlines() == ["closed NoneType", "outcome interrupt interrupt 3", "restored True"]
    assert process.returncode == 0


def test_a_second_signal_aborts_and_still_closes() -> None:
    with _start("hang") as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    lines = output.splitlines()
    assert lines[0] == "closed Aborted"
    assert lines[1].startswith("aborted SIG")
    assert "while the run was stopping (interrupt)" in lines[1]
    assert lines[2] == "restored True"
    assert process.returncode == 0
