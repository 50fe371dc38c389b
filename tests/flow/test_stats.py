"""What a run tells of itself: the bottleneck, waits, spans, progress, loop lag."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pipeline.flow import RunReport, Stage, StageContext, StageReport
from pipeline.flow.lag import EVERY_S, LagSampler
from pipeline.flow.stats import find_bottleneck
from tests.flow.samples import Inline, Keep, Numbers, OnLane, Run, graph_of, until, variant

SLOW_S = 0.003


def _figures(name: str, service_s: float, concurrency: int = 1, **counters: float) -> StageReport:
    return StageReport(name, 0, 0, service_s, 0, 0, 0, 0, 0, concurrency, counters)


@pytest.mark.parametrize(
    ("stages", "slowest"),
    [
        ([("a", 1.0), ("b", 5.0), ("c", 2.0)], "b"),
        ([("a", 9.0), ("b", 5.0), ("c", 2.0)], "a"),
        ([("a", 10.0), ("b", 9.5), ("c", 2.0)], "b"),
        ([("a", 8.0, 4), ("b", 3.0)], "b"),
    ],
)
def test_the_bottleneck_is_the_stage_with_most_service_for_each_item_at_once(stages: Any, slowest: str) -> None:
    assert find_bottleneck([_figures(*stage) for stage in stages]) == slowest


def test_what_a_stage_counts_as_waited_is_no_service() -> None:
    assert find_bottleneck([_figures("a", 10.0, waited_s=9.0), _figures("b", 2.0)]) == "b"


async def _slow_process(_self: Stage, item: int) -> int:
    await asyncio.sleep(SLOW_S)
    return item


def _slow_work(_self: Stage, item: int) -> int:
    threading.Event().wait(SLOW_S)
    return item


async def _slow_items(self: Numbers) -> AsyncIterator[int]:
    while self.last < self.options.count:
        await asyncio.sleep(SLOW_S)
        self.last += 1
        yield self.last


SLOW: dict[str, type[Stage]] = {
    "numbers": variant(Numbers, items=_slow_items),
    "p": variant(Inline, process=_slow_process),
    "q": variant(OnLane, work=_slow_work),
    "r": variant(OnLane, work=_slow_work),
}


@pytest.mark.parametrize("nbytes", [None, 1000])
@pytest.mark.parametrize("name", SLOW)
def test_a_slow_stage_shows_up_by_name(name: str, nbytes: int | None) -> None:
    nodes: dict[str, Any] = {
        "numbers": {"count": 10},
        "p": {"use": "inline", "queue": {"bytes": nbytes}},
        "q": {"use": "on_lane"},
        "r": {"use": "on_lane"},
        "keep": {"queue": {"bytes": nbytes}},
    }
    nodes[name] = {**nodes[name], "use": name}
    graph = graph_of(nodes, **{name: SLOW[name]})
    assert len(graph.visits) == 4
    assert Run(graph).go().bottleneck == name


def test_stages_in_front_of_a_slow_one_wait_to_send_and_those_behind_it_to_receive() -> None:
    queue = {"queue": {"items": 1}}
    nodes: dict[str, Any] = {
        "numbers": {"count": 20},
        "a": {"use": "inline"} | queue,
        "slow": queue,
        "b": {"use": "inline"} | queue,
    }
    report = Run(graph_of(nodes, slow=SLOW["p"])).go()
    a, slow, b = (report.stages[name] for name in ("a", "slow", "b"))
    assert a.output_wait_s > slow.output_wait_s
    assert b.input_wait_s > slow.input_wait_s
    assert report.channels["a->slow"].depth_max == 1
    assert report.channels["a->slow"].send_wait_s == a.output_wait_s


def test_counters_of_a_stage_end_in_the_report_from_any_thread() -> None:
    class Counting(OnLane):
        async def open(self, context: StageContext) -> None:
            self.counters = context.counters

        def work(self, item: int) -> int:
            self.counters.add("rows", 2)
            self.counters.add("seen_s", 0.5)
            return item

    report = Run(graph_of({"numbers": {"count": 4}, "c": {}}, c=Counting)).go()
    assert report.stages["c"].counters == {"rows": 8, "seen_s": 2.0}


def test_figures_are_plain_values_for_json() -> None:
    report = Run(graph_of({"numbers": {}, "p": {"use": "on_lane"}, "keep": {}})).go()
    text = json.dumps([report.stage_figures(), report.channel_figures(), report.loop_lag_ms], allow_nan=False)
    assert '"numbers->p"' in text
    assert report.wall_s > 0
    assert report.lanes["a"].calls == 10


def test_progress_can_be_seen_while_it_runs() -> None:
    seen: list[RunReport] = []
    run: Run

    def on_progress() -> None:
        seen.append(run.runner.progress())

    async def beside(run: Run) -> None:
        await until(lambda: len(seen) > 1)
        run.runner.request_stop()

    run = Run(graph_of({"waiting": {"count": 5}, "keep": {}}), on_progress=on_progress, progress_every_s=0.001)
    run.go(beside)
    assert seen[-1].outcome == "running"
    assert seen[-1].stages["keep"].items_in == 5
    assert seen[-1].stages["keep"].input_wait_s > 0


def test_spans_name_every_stage_and_item() -> None:
    spans: list[tuple[str, int, int]] = []
    nodes: dict[str, Any] = {
        "numbers": {"count": 3},
        "p": {"use": "on_lane"},
        "q": {"use": "on_lane"},
        "pure": {"retries": 1},
        "keep": {},
    }
    pure = variant(Inline, effects="none")
    Run(graph_of(nodes, pure=pure), on_span=lambda *span: spans.append(span)).go()
    assert sorted(name for name, _, _ in spans) == sorted(["numbers", "p", "q", "pure", "keep"] * 3)
    assert all(begin <= end for _, begin, end in spans)


def test_a_loop_that_was_held_shows_in_its_lag() -> None:
    async def main() -> LagSampler:
        sampler = LagSampler()
        sampler.start()
        end = time.perf_counter() + 4 * EVERY_S
        while time.perf_counter() < end:
            pass
        sampler.stop()
        return sampler

    lag = asyncio.run(main()).lag()
    assert lag.samples == 1
    assert lag.max_ms >= 2 * EVERY_S * 1e3
    assert 0 < lag.p99_ms <= lag.max_ms


def test_kept_items_pass_through_the_last_stage() -> None:
    assert Run(graph_of({"numbers": {}, "keep": {}}, keep=Keep)).go().stages["keep"].items_out == 10
