"""A run from open to close: order, markers, states, limits, fused visits, resources."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pipeline.flow import (
    Every,
    FlowError,
    GraphError,
    Lanes,
    Many,
    Marker,
    Runner,
    Stage,
    StageContext,
    StageError,
)
from pipeline.flow.runner import SWITCH_INTERVAL_S
from tests.flow.samples import Inline, Keep, Numbers, OnLane, Run, graph_of, until, variant

LANE_STAGE = {"use": "on_lane"}
BOUNDS: list[dict[str, Any]] = [{"items": 1}, {"items": 3, "bytes": None}, {"items": 64, "bytes": None}]


@pytest.mark.parametrize("queue", BOUNDS)
@pytest.mark.parametrize("use", ["inline", "on_lane"])
def test_every_item_passes_every_stage_in_order(use: str, queue: dict[str, Any]) -> None:
    stages = {f"s{n}": {"use": use, "queue": queue} for n in range(4)}
    run = Run(graph_of({"numbers": {"count": 300}, **stages, "keep": {"queue": queue}}))
    report = run.go()
    assert run.kept == [number + 4 for number in range(1, 301)]
    assert report.outcome == "end"
    assert {stage.items_in for name, stage in report.stages.items() if name != "numbers"} == {300}
    assert {stage.items_out for stage in report.stages.values()} == {300}
    assert report.items == 300
    assert report.skipped == 0


def test_order_is_kept_under_concurrency_with_random_delays() -> None:
    chance = random.Random()

    class Slow(Stage):
        consumes = produces = int
        effects = "none"
        now = most = 0

        async def process(self, item: int) -> int:
            Slow.now += 1
            Slow.most = max(Slow.most, Slow.now)
            for _ in range(chance.randrange(20)):
                await asyncio.sleep(0)
            Slow.now -= 1
            return item

    run = Run(graph_of({"numbers": {"count": 400}, "slow": {"concurrency": 7}, "keep": {}}, slow=Slow))
    run.go()
    assert run.kept == list(range(1, 401))
    assert Slow.most == 7


def test_concurrency_on_a_lane_uses_its_threads_and_keeps_the_order() -> None:
    together = threading.Barrier(3)

    def work(_self: Stage, item: int) -> int:
        together.wait()
        return item

    pure = variant(OnLane, effects="none", work=work)
    run = Run(graph_of({"numbers": {"count": 30}, "pure": {"concurrency": 3}, "keep": {}}, pure=pure), lanes={"a": 3})
    report = run.go()
    assert run.kept == list(range(1, 31))
    assert report.stages["pure"].service_s > 0
    assert report.lanes["a"].calls == 30


def test_many_becomes_any_number_of_items_none_included() -> None:
    async def repeat(_self: Stage, item: int) -> Many:
        return Many([item] * (item % 3))

    def repeat_work(_self: Stage, item: int) -> Many:
        return Many([item] * 2)

    classes = {"inline_many": variant(Inline, process=repeat), "lane_many": variant(OnLane, work=repeat_work)}
    queue = {"queue": {"items": 2, "bytes": None}}
    run = Run(graph_of({"numbers": {"count": 5}, "inline_many": queue, "lane_many": {}, "keep": queue}, **classes))
    report = run.go()
    assert run.kept == [1, 1, 2, 2, 2, 2, 4, 4, 5, 5, 5, 5]
    assert (report.stages["inline_many"].items_out, report.stages["lane_many"].items_out) == (6, 12)


def _visits(fused: bool) -> tuple[list[Any], list[dict[str, Any]], dict[str, tuple[int, int]]]:
    def spread(_self: OnLane, item: int) -> Any:
        _self.seen += 1
        return Many(range(item, item + item % 3)) if item % 3 != 1 else item

    async def drain(_self: OnLane) -> Many:
        return Many([_self.seen * 1000])

    spread_class = variant(OnLane, work=spread, drain=drain)
    drained = variant(OnLane, drain=drain)
    queue: dict[str, Any] = {} if fused else {"queue": {"items": 2}}
    nodes = {
        "numbers": {"count": 20},
        "p": LANE_STAGE | queue,
        "spread": queue,
        "q": {"use": "drained"} | queue,
        "keep": {},
    }
    graph = graph_of(nodes, spread=spread_class, drained=drained)
    assert len(graph.visits) == (3 if fused else 5)
    run = Run(graph, marker_every=6)
    report = run.go()
    counts = {name: (stage.items_in, stage.items_out) for name, stage in report.stages.items()}
    return run.kept, [marker.states for marker in run.markers], counts


def test_a_fused_visit_equals_the_same_stages_unfused() -> None:
    assert _visits(fused=True) == _visits(fused=False)


def test_each_of_many_goes_all_the_way_through_a_fused_visit_before_the_next() -> None:
    calls: list[str] = []

    def noting(name: str, count: int) -> type[Stage]:
        def work(_self: Stage, item: int) -> Many:
            calls.append(name)
            return Many([item] * count)

        return variant(OnLane, work=work)

    Run(
        graph_of(
            {"numbers": {"count": 1}, "p": {}, "q": {}, "r": {}}, p=noting("p", 2), q=noting("q", 1), r=noting("r", 0)
        )
    ).go()
    assert calls == ["p", "q", "r", "q", "r"]


def test_a_marker_carries_each_stages_state_as_of_the_items_before_it() -> None:
    run = Run(graph_of({"numbers": {"count": 10}, "p": LANE_STAGE, "inline": {}, "keep": {}}), marker_every=4)
    run.go()
    assert [(m.reason, m.number, m.states["numbers"], m.states["p"]) for m in run.markers] == [
        ("checkpoint", 1, 4, 4),
        ("checkpoint", 2, 8, 8),
        ("end", 3, 10, 10),
    ]
    assert set(run.markers[0].states) == {"numbers", "p", "inline", "keep"}


def test_mark_is_awaited_before_state_and_between_the_right_items() -> None:
    seen: list[Any] = []

    class Marked(Keep):
        async def process(self, item: int) -> int:
            seen.append(item)
            return item

        async def mark(self, marker: Marker) -> None:
            seen.append(marker.reason)
            marker.attachments["pinned"] = len(seen)

        def state(self) -> int:
            return len(seen)

    queue = {"queue": {"items": 8, "bytes": None}}
    run = Run(graph_of({"numbers": {"count": 3}, "inline": queue, "marked": queue}, marked=Marked), marker_every=2)
    run.go()
    assert seen == [2, 3, "checkpoint", 4, "end"]
    assert [(m.states["marked"], m.attachments) for m in run.markers] == [(3, {"pinned": 3}), (5, {"pinned": 5})]


def test_a_marker_passes_a_concurrent_stage_alone() -> None:
    class Counting(Stage):
        consumes = produces = int
        effects = "none"
        running = 0
        ended = 0
        at_mark: list[tuple[int, int]] = []

        async def process(self, item: int) -> int:
            Counting.running += 1
            for _ in range(item % 5):
                await asyncio.sleep(0)
            Counting.running -= 1
            Counting.ended += 1
            return item

        async def mark(self, marker: Marker) -> None:  # noqa: ARG002
            Counting.at_mark.append((Counting.running, Counting.ended))

    run = Run(graph_of({"numbers": {"count": 50}, "c": {"concurrency": 4}, "keep": {}}, c=Counting), marker_every=20)
    run.go()
    assert Counting.at_mark == [(0, 20), (0, 40), (0, 50)]
    assert run.kept == list(range(1, 51))


def test_at_the_end_each_stage_is_drained_in_order_before_the_last_marker() -> None:
    events: list[Any] = []

    def holding(name: str) -> type[Stage]:
        class Holding(Stage):
            consumes = produces = int

            async def process(self, item: int) -> int:
                events.append((name, item))
                return item

            async def drain(self) -> Many:
                events.append((name, "drain"))
                return Many([100])

            async def mark(self, marker: Marker) -> None:
                events.append((name, marker.reason))

        return Holding

    run = Run(graph_of({"numbers": {"count": 1}, "p": {}, "q": {}, "keep": {}}, p=holding("p"), q=holding("q")))
    run.go()
    assert events == [
        ("p", 1),
        ("p", "drain"),
        ("p", "end"),
        ("q", 1),
        ("q", 100),
        ("q", "drain"),
        ("q", "end"),
    ]
    assert run.kept == [1, 100, 100]


def test_a_run_goes_on_from_restored_states_as_if_it_had_not_ended() -> None:
    nodes: dict[str, Any] = {"numbers": {"count": 12}, "p": LANE_STAGE, "keep": {}}
    whole = Run(graph_of(nodes))
    whole.go()
    first = Run(graph_of(nodes), max_items=5)
    assert first.go().outcome == "limit"
    states = first.markers[-1].states
    assert first.markers[-1].reason == "limit"
    second = Run(graph_of(nodes), restore=states)
    second.go()
    assert first.kept + second.kept == whole.kept
    assert second.markers[-1].states["p"] == 12


def test_a_state_without_its_stage_is_refused() -> None:
    with pytest.raises(GraphError, match=r"'gone' to restore.*numbers"):
        Run(graph_of({"numbers": {}}), restore={"gone": 1, "also gone": None}).go()


@pytest.mark.parametrize("limit", [0, 1, 7, 10])
def test_a_limit_stops_the_source_and_drains_nobody(limit: int) -> None:
    drained: list[str] = []

    async def drain(_self: Stage) -> Many:
        drained.append("drained")
        return Many()

    run = Run(graph_of({"numbers": {}, "p": {}, "keep": {}}, p=variant(Inline, drain=drain)), max_items=limit)
    report = run.go()
    assert run.kept == [number + 1 for number in range(1, limit + 1)]
    assert report.outcome == "limit"
    assert [(m.reason, m.states["numbers"]) for m in run.markers] == [("limit", limit)]
    assert drained == []


def test_a_graph_of_a_source_alone_runs_and_can_be_stopped() -> None:
    async def beside(run: Run) -> None:
        await until(lambda: run.runner.progress().items > 10)
        run.runner.request_stop()

    assert Run(graph_of({"numbers": {"count": 25}})).go().items == 25
    assert Run(graph_of({"numbers": {"count": 1 << 60}})).go(beside).outcome == "interrupt"


def test_stages_open_in_order_and_close_in_reverse_with_their_resources() -> None:
    events: list[str] = []

    class Noisy(Inline):
        needs = {"kept": list}

        async def open(self, context: StageContext) -> None:
            assert list(context.resources) == ["kept"]
            self.name = context.name
            events.append(f"open {context.name}")

        async def close(self, error: BaseException | None) -> None:
            assert error is None
            events.append(f"close {self.name}")

    nodes: dict[str, Any] = {"numbers": {}, "a": {"use": "noisy"}, "b": {"use": "noisy"}}
    Run(graph_of(nodes, noisy=Noisy), resources={"other": 1}).go()
    assert events == ["open a", "open b", "close b", "close a"]


def test_a_need_that_nobody_gives_is_an_error_that_names_the_stage() -> None:
    runner = Runner(graph_of({"numbers": {}, "keep": {}}), {"other": 1}, Lanes())
    with pytest.raises(StageError, match=r"stage 'keep'.*needs kept; the resources are other"):
        asyncio.run(runner.run())


def test_ready_is_awaited_before_each_item_and_is_no_service_time() -> None:
    gate = asyncio.Event()
    seen: list[Any] = []

    class Gated(OnLane):
        async def ready(self, item: int) -> None:
            seen.append(("ready", item))
            await gate.wait()

        def work(self, item: int) -> int:
            seen.append(("work", item))
            return item

    async def beside(run: Run) -> None:  # noqa: ARG001
        await until(lambda: len(seen) == 1)
        gate.set()

    report = Run(graph_of({"numbers": {"count": 2}, "gated": {}}, gated=Gated)).go(beside)
    assert seen == [("ready", 1), ("work", 1), ("ready", 2), ("work", 2)]
    assert report.stages["gated"].ready_wait_s > 0


def test_a_background_task_runs_beside_the_stages_and_ends_with_them() -> None:
    events: list[str] = []

    class Spawning(Inline):
        async def open(self, context: StageContext) -> None:
            context.spawn(self.background, "early")
            self.context = context
            self.last_words = asyncio.Event()

        async def background(self) -> None:
            events.append("started")
            try:
                await self.last_words.wait()
                events.append("heard")
                await asyncio.Event().wait()
            finally:
                events.append("cancelled")

        async def close(self, error: BaseException | None) -> None:  # noqa: ARG002
            self.last_words.set()
            await until(lambda: "heard" in events)
            events.append("closed")

    run = Run(graph_of({"numbers": {}, "s": {}}, s=Spawning))
    run.go()
    assert events == ["started", "heard", "closed", "cancelled"]


def test_a_background_task_cannot_start_when_the_run_is_over() -> None:
    contexts: list[StageContext] = []

    class Spawning(Inline):
        async def open(self, context: StageContext) -> None:
            contexts.append(context)

    Run(graph_of({"numbers": {}, "s": {}}, s=Spawning)).go()

    async def late() -> None:
        contexts[0].spawn(late, "late")

    with pytest.raises(FlowError, match="'late' cannot start, the run is over"):
        asyncio.run(late())


def test_a_timed_marker_goes_out_while_the_source_waits_and_only_when_there_is_something_new() -> None:
    async def beside(run: Run) -> None:
        await until(lambda: len(run.markers) == 1)
        for _ in range(100):
            run.runner.request_marker()
            await asyncio.sleep(0)
        run.runner.request_stop()

    run = Run(graph_of({"waiting": {"count": 3}, "p": LANE_STAGE, "keep": {}}), marker_every=Every(seconds=0.001))
    run.go(beside)
    assert [(m.reason, m.number) for m in run.markers] in (
        [("checkpoint", 1), ("interrupt", 2)],
        [("checkpoint", 1), ("checkpoint", 2), ("interrupt", 3)],
    )
    assert run.markers[-1].states["p"] == run.markers[-1].states["waiting"] == 3


@pytest.mark.parametrize("seed", range(10))
def test_markers_asked_for_at_any_moment_find_a_consistent_state(seed: int) -> None:
    chance = random.Random(seed)

    class Slow(Numbers):
        async def items(self) -> AsyncIterator[int]:
            while self.last < self.options.count:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                self.last += 1
                yield self.last

        async def mark(self, marker: Marker) -> None:  # noqa: ARG002
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)

    async def beside(run: Run) -> None:
        while True:
            run.runner.request_marker()
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)

    queue = {"queue": {"items": chance.choice([1, 4]), "bytes": chance.choice([None, 1000])}}
    run = Run(graph_of({"slow": {"count": 60}, "p": LANE_STAGE | queue, "keep": queue}, slow=Slow))
    run.go(beside)
    assert run.kept == list(range(2, 62))
    assert len(run.markers) > 3
    assert [marker.number for marker in run.markers] == list(range(1, len(run.markers) + 1))
    assert all(marker.states["p"] == marker.states["slow"] for marker in run.markers)


def test_the_interpreters_switch_interval_is_short_during_a_run_and_restored_after() -> None:
    seen: list[float] = []

    async def process(_self: Stage, item: int) -> int:
        seen.append(sys.getswitchinterval())
        return item

    before = sys.getswitchinterval()
    sys.setswitchinterval(0.004)
    try:
        Run(graph_of({"numbers": {"count": 1}, "p": {}}, p=variant(Inline, process=process))).go()
        assert seen == [pytest.approx(SWITCH_INTERVAL_S)]
        assert sys.getswitchinterval() == pytest.approx(0.004)
    finally:
        sys.setswitchinterval(before)


def test_a_runner_runs_once() -> None:
    run = Run(graph_of({"numbers": {}}))
    run.go()
    with pytest.raises(FlowError, match="runs once"):
        run.go()


def test_lanes_stay_open_for_their_owner() -> None:
    graph = graph_of({"numbers": {}, "p": LANE_STAGE})

    async def main(lanes: Lanes) -> int:
        await Runner(graph, {}, lanes).run()
        return int((await lanes.get("a").run(divmod, 7, 2))[0])

    with Lanes() as lanes:
        assert asyncio.run(main(lanes)) == 3
    with pytest.raises(StageError, match=r"stage 'p'.*lane 'a': is closed"):
        asyncio.run(Runner(graph, {}, lanes).run())


@pytest.mark.parametrize(
    ("given", "every"),
    [
        (5, Every(items=5)),
        ("1000 steps", Every(items=1000)),
        ("10", Every(items=10)),
        ("25ms", Every(seconds=0.025)),
        ("1.5 s", Every(seconds=1.5)),
        ("5 min", Every(seconds=300)),
        (None, None),
    ],
)
def test_an_interval_is_items_or_time(given: Any, every: Every | None) -> None:
    assert Every.parse(given) == every


@pytest.mark.parametrize("given", ["", "often", "1.5 steps", "-3", "0 steps", "5 parsecs"])
def test_what_is_no_interval_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"interval|above 0"):
        Every.parse(given)


def test_a_lane_is_given_no_more_items_than_there_is_room_for_behind_it() -> None:
    go = threading.Event()
    begun: list[int] = []

    def work(_self: Stage, item: int) -> int:
        begun.append(item)
        return item

    class Held(Keep):
        async def process(self, item: int) -> int:
            await until(go.is_set)
            self.kept.append(item)
            return item

    async def beside(run: Run) -> None:
        # One is held, two wait behind the lane: the fourth has been worked on and waits for room, and no other.
        await until(lambda: len(begun) == 4)
        for _ in range(200):
            await asyncio.sleep(0)
        assert run.runner.progress().channels["it->held"].depth == 2
        assert begun == [1, 2, 3, 4]
        go.set()
        await asyncio.Event().wait()

    nodes: dict[str, Any] = {"numbers": {"count": 20}, "it": {"queue": {"items": 10}}, "held": {"queue": {"items": 2}}}
    run = Run(graph_of(nodes, it=variant(OnLane, work=work), held=Held))
    run.go(beside)
    assert run.kept == list(range(1, 21))


@pytest.mark.parametrize("use", ["inline", "on_lane"])
@pytest.mark.parametrize("nbytes", [None, 1000])
def test_a_result_is_handed_on_before_the_next_item_is_done(use: str, nbytes: int | None) -> None:
    """A stage may wait for what a later one does with an earlier item: for room that is given back, say."""
    arrived: list[int] = []
    changed = threading.Condition()

    def wait_for_the_one_before(_self: Stage, item: int) -> int:
        with changed:
            changed.wait_for(lambda: len(arrived) >= item - 1)
        return item

    async def wait_on_the_loop(_self: Stage, item: int) -> int:
        await until(lambda: len(arrived) >= item - 1)
        return item

    class Arriving(Keep):
        async def process(self, item: int) -> int:
            with changed:
                arrived.append(item)
                changed.notify_all()
            return item

    waiting = (
        variant(OnLane, work=wait_for_the_one_before) if use == "on_lane" else variant(Inline, process=wait_on_the_loop)
    )
    queue: dict[str, Any] = {"queue": {"items": 8, "bytes": nbytes}}
    nodes: dict[str, Any] = {"numbers": {"count": 30}, "waiting": queue, "arriving": queue}
    Run(graph_of(nodes, waiting=waiting, arriving=Arriving)).go()
    assert arrived == list(range(1, 31))


def test_an_ordered_stage_works_on_one_item_at_a_time_also_on_a_lane_of_several_threads() -> None:
    inside: list[int] = []

    def work(_self: Stage, item: int) -> int:
        inside.append(item)
        threading.Event().wait(1e-4)
        assert inside == [item]
        inside.clear()
        return item

    queue: dict[str, Any] = {"queue": {"items": 16}}
    run = Run(
        graph_of({"numbers": {"count": 50}, "p": queue, "keep": queue}, p=variant(OnLane, work=work)), lanes={"a": 4}
    )
    run.go()
    assert run.kept == list(range(1, 51))
