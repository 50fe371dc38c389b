"""Cuts are made in the time that training leaves, and by a lane that gives way to nobody while that is too little."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from pipeline.flow import Lanes
from pipeline.flow.priority import run_like_others, run_when_idle
from stages.cut_lanes import FIRST_SPAN_S, LATE_S, LONGEST_SPAN_S, CutLanes


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def lanes() -> AsyncIterator[Lanes]:
    async with Lanes() as made:
        yield made


class Cuts:
    """Makes cuts that last as long as they are told to."""

    def __init__(self, lanes: Lanes) -> None:
        self.clock = Clock()
        self.lanes = CutLanes(lanes.get("patient"), lanes.get("prompt"), clock=self.clock)

    async def cut(self, seconds: float) -> str:
        """Which lane made it."""

        def make(seconds: float) -> str:
            self.clock.now_s += seconds
            return threading.current_thread().name.split("-")[1]

        name: str = await self.lanes.run(make, seconds)
        return name


async def test_cuts_in_time_give_way(lanes: Lanes) -> None:
    cuts = Cuts(lanes)
    assert [await cuts.cut(LATE_S / 2) for _ in range(20)] == ["patient"] * 20
    assert cuts.lanes.late == 0


async def test_behind_a_late_cut_the_next_ones_do_not_give_way_for_a_while(lanes: Lanes) -> None:
    cuts = Cuts(lanes)
    assert [await cuts.cut(seconds) for seconds in (2 * LATE_S, 0.01, 2 * LATE_S, 0.01)] == ["patient"] + ["prompt"] * 3
    assert cuts.lanes.late == 1, "a prompt cut that takes long is the disk's affair"
    cuts.clock.now_s += FIRST_SPAN_S
    assert await cuts.cut(0.01) == "patient"


async def test_while_cuts_come_late_whenever_they_give_way_that_is_tried_less_and_less(lanes: Lanes) -> None:
    cuts, tried = Cuts(lanes), []
    for _ in range(3000):
        if await cuts.cut(1.0) == "patient":
            tried.append(cuts.clock.now_s)
    spans = [later - earlier for earlier, later in pairwise(tried)]
    assert spans == sorted(spans)
    assert LONGEST_SPAN_S <= spans[-1] <= LONGEST_SPAN_S + 2
    assert spans[0] <= FIRST_SPAN_S + 2


async def test_a_long_time_without_a_late_cut_makes_the_next_span_short_again(lanes: Lanes) -> None:
    cuts = Cuts(lanes)
    for _ in range(1000):
        await cuts.cut(1.0)
    cuts.clock.now_s += LONGEST_SPAN_S  # over
    for _ in range(40):
        assert await cuts.cut(LATE_S / 2) == "patient"
        cuts.clock.now_s += LONGEST_SPAN_S / 20
    await cuts.cut(1.0)
    assert await cuts.cut(0.01) == "prompt"
    cuts.clock.now_s += FIRST_SPAN_S
    assert await cuts.cut(0.01) == "patient"


async def test_what_a_cut_raises_is_raised(lanes: Lanes) -> None:
    with pytest.raises(ZeroDivisionError):
        await CutLanes(lanes.get("patient"), lanes.get("prompt")).run(divmod, 1, 0)


async def test_without_a_patient_lane_no_cut_gives_way(lanes: Lanes) -> None:
    cuts = CutLanes(None, lanes.get("prompt"))
    assert await cuts.run(lambda: threading.current_thread().name) == "lane-prompt-0"


def _policy() -> int:
    return os.sched_getscheduler(threading.get_native_id())


def _takes_back() -> int:
    run_like_others(run_when_idle())
    return _policy()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a policy per thread")
async def test_a_patient_cut_runs_when_the_processor_is_idle_and_a_late_one_is_let_off_where_it_may(
    lanes: Lanes,
) -> None:
    allowed = await lanes.get("trial").run(_takes_back) == os.SCHED_OTHER
    ended = threading.Event()

    def cut() -> list[int]:
        begun = _policy()
        while allowed and _policy() == os.SCHED_IDLE and not ended.wait(0.001):
            pass
        return [begun, _policy()]

    cuts = CutLanes(lanes.get("patient"), lanes.get("prompt"), late_s=0.01)
    asyncio.get_running_loop().call_later(30, ended.set)
    assert await cuts.run(cut) == [os.SCHED_IDLE, os.SCHED_OTHER if allowed else os.SCHED_IDLE]
    assert await lanes.get("prompt").run(_policy) == _policy() != os.SCHED_IDLE
