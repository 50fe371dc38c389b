"""What the runtime itself costs: six stages that give back what they are given, beside SPDL and torchdata.nodes.

The time is that of the whole run divided by items and stages: for this runtime from ``Runner.run`` to its end, opening and closing
included; for the peers from the first item asked for to the last, their building left out. Kinds:

- inline: each stage works where the pipeline runs. SPDL: coroutines on its loop. torchdata.nodes: ``Mapper``, plain calls without
  a queue between them.
- lane: each stage has a thread of its own. SPDL: an executor of one thread. torchdata.nodes: ``ParallelMapper``, one worker.

SPDL fixes its queues to two items and counts waits in them; here it gets plain ones of the same bound as this runtime.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from time import perf_counter
from typing import Any

from pipeline.flow import Graph, Lanes, Runner, Source, Stage, StageOptions, plan, run_loop
from tools.bench.report import BenchRow

NAME = "runtime"
HELP = "overhead of the runtime per item and stage, inline and through a lane, against SPDL and torchdata.nodes"

STAGES = 6
QUEUE_ITEMS = 64
PEERS = {"SPDL 0.8.0": "spdl==0.8.0", "torchdata.nodes 0.11.0": "torchdata==0.11.0"}
Timer = Callable[[str, int], float]
GOALS_US = {"inline": 5.0, "lane": 60.0}
ITEMS = {"inline": 20_000, "lane": 2_000}
SPDL_PART = 4
"""SPDL gets this part of the items, as it takes a hundred times as long for each."""
DEFAULT = "4 items and 256 MiB, the default"
OTHER_QUEUES: Mapping[str, dict[str, Any]] = {DEFAULT: {}, "1 item": {"items": 1}}


class CountOptions(StageOptions):
    count: int


class Count(Source):
    """Yields 0, 1, ..."""

    Options = CountOptions
    produces = int

    async def items(self) -> AsyncIterator[int]:
        for number in range(self.options.count):
            yield number


class Inline(Stage):
    """Gives back what it is given, on the loop."""

    consumes = int
    produces = int

    async def process(self, item: int) -> int:
        return item


class OnLane(Stage):
    """The same on a thread."""

    consumes = int
    produces = int
    lane = "0"

    def work(self, item: int) -> int:
        return item


def run(quick: bool) -> list[BenchRow]:
    """One row for each kind and peer, then this runtime alone at other bounds."""
    rounds = 4 if quick else 12
    rows: list[BenchRow] = []
    for kind, goal_us in GOALS_US.items():
        count = ITEMS[kind] // (4 if quick else 1)
        knobs = {
            "stages": STAGES,
            "items": count,
            "queue": f"{QUEUE_ITEMS} items",
            "rounds": rounds,
            "figure": "median",
        }
        for peer, timer in (("SPDL 0.8.0", time_spdl), ("torchdata.nodes 0.11.0", time_nodes)):
            rows.append(_against_peer(peer, timer, kind, goal_us, count, rounds, knobs))
        rows += [_alone(kind, goal_us, count, rounds, bound, knobs) for bound in OTHER_QUEUES]
    return rows


def _alone(kind: str, goal_us: float, count: int, rounds: int, bound: str, knobs: Mapping[str, object]) -> BenchRow:
    graph = our_graph(kind, count, OTHER_QUEUES[bound])
    own_us = statistics.median(time_ours(graph, count) for _ in range(rounds))
    row = BenchRow(NAME, f"{kind} stage, bound {bound}", _us(own_us), knobs={**knobs, "queue": bound})
    return replace(row, goal=f"<= {goal_us:g} us", met=own_us <= goal_us) if bound == DEFAULT else row


def _against_peer(
    peer: str, timer: Timer, kind: str, goal_us: float, count: int, rounds: int, knobs: Mapping[str, object]
) -> BenchRow:
    """Pairs of runs, one of each, in alternating order; the medians of both."""
    graph = our_graph(kind, count, {"items": QUEUE_ITEMS, "bytes": None})
    times: dict[str, list[float]] = {"own": [], "peer": []}
    absent = ""
    for number in range(rounds):
        for side in ("own", "peer") if number % 2 else ("peer", "own"):
            gc.collect()
            try:
                times[side].append(time_ours(graph, count) if side == "own" else timer(kind, count))
            except ImportError as error:
                absent = f"absent: pip install {PEERS[peer]} ({error.name})"
    own_us = statistics.median(times["own"])
    peer_us = statistics.median(times["peer"]) if times["peer"] else None
    return BenchRow(
        bench=NAME,
        what=f"{kind} stage, per item",
        measured=_us(own_us),
        peer=peer,
        peer_measured=absent if peer_us is None else _us(peer_us),
        goal=f"lowest, <= {goal_us:g} us",
        met=None if peer_us is None else own_us < peer_us and own_us <= goal_us,
        knobs=knobs,
    )


def our_graph(kind: str, count: int, queue: Mapping[str, Any]) -> Graph:
    """Six identity stages; through lanes each has its own, so nothing is fused."""
    lanes = {f"stage{n}": type(f"OnLane{n}", (OnLane,), {"lane": f"lane{n}"}) for n in range(STAGES)}
    classes: dict[str, type[Stage]] = {"count": Count, **lanes}
    if kind == "inline":
        classes |= dict.fromkeys(lanes, Inline)
    options = {"queue": dict(queue)} if queue else {}
    return plan({"count": {"count": count}, **dict.fromkeys(lanes, options)}, find=classes.__getitem__)


def time_ours(graph: Graph, count: int) -> float:
    """Microseconds per item and stage."""
    with Lanes() as lanes:
        report = run_loop(lambda: Runner(graph, {}, lanes).run())
    assert report.stages[f"stage{STAGES - 1}"].items_out == count
    return report.wall_s / count / STAGES * 1e6


def time_spdl(kind: str, count: int) -> float:
    """The same for SPDL. Raises ImportError where it is absent."""
    count //= SPDL_PART
    from spdl.pipeline import AsyncQueue, PipelineBuilder

    def init(self: Any, info: Any, *, buffer_size: int = 1) -> None:
        AsyncQueue.__init__(self, info, buffer_size=max(buffer_size, QUEUE_ITEMS))

    plain = type("Plain", (AsyncQueue,), {"__init__": init})
    with ExitStack() as stack:
        builder: Any = PipelineBuilder()
        builder = builder.add_source(range(count))
        for _ in range(STAGES):
            if kind == "inline":
                builder = builder.pipe(_identity_async)
            else:
                builder = builder.pipe(_identity, executor=stack.enter_context(ThreadPoolExecutor(1)))
        made = builder.add_sink(QUEUE_ITEMS).build(num_threads=1, queue_class=plain)
        with made.auto_stop():
            return _consume(made.get_iterator(timeout=600), count)


def time_nodes(kind: str, count: int) -> float:
    """The same for torchdata.nodes. Raises ImportError where it is absent."""
    from torchdata.nodes import BaseNode, Mapper, ParallelMapper

    class Numbers(BaseNode):  # type: ignore[misc,unused-ignore]
        def reset(self, initial_state: Any = None) -> None:
            super().reset(initial_state)
            self.left = iter(range(count))

        def next(self) -> int:
            return next(self.left)

        def get_state(self) -> dict[str, Any]:
            return {}

    node: Any = Numbers()
    for _ in range(STAGES):
        lane = kind == "lane"
        node = ParallelMapper(node, _identity, num_workers=1, method="thread") if lane else Mapper(node, _identity)
    node.reset()
    return _consume(node, count)


def _consume(items: Any, count: int) -> float:
    begin = perf_counter()
    seen = sum(1 for _ in items)
    elapsed_s = perf_counter() - begin
    assert seen == count, f"{seen} of {count} items came out"
    return elapsed_s / count / STAGES * 1e6


def _identity(item: Any) -> Any:
    return item


async def _identity_async(item: Any) -> Any:
    return item


def _us(value: float) -> str:
    return f"{value:.2f} us" if value < 10 else f"{value:.1f} us"
