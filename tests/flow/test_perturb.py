"""Random delays at every send, receive, stage entry and lane entry change nothing but the time it takes."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest

from pipeline.flow import Stage
from tests.flow.samples import Inline, Run, graph_of, variant


class Delays:
    """Seeded delays, and which points were passed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self.points: set[str] = set()

    def _draw(self, point: str) -> int:
        with self._lock:
            self.points.add(point)
            return self._chance.randrange(4)

    async def pause(self, point: str) -> None:
        for _ in range(self._draw(point)):
            await asyncio.sleep(0)

    def block(self, point: str) -> None:
        threading.Event().wait(self._draw(point) * 1e-4)


async def _pure(_self: Stage, item: int) -> int:
    return item * 3


def _run(perturb: Any) -> tuple[list[int], list[Any], Any]:
    nodes: dict[str, Any] = {
        "numbers": {"count": 40},
        "pure": {"concurrency": 3},
        "inline": {"queue": {"items": 2, "bytes": None}},
        "p": {"use": "on_lane"},
        "q": {"use": "on_lane"},
        "keep": {"queue": {"items": 1}},
    }
    graph = graph_of(nodes, pure=variant(Inline, effects="none", process=_pure))
    run = Run(graph, perturb=perturb, marker_every=7)
    report = run.go()
    counts = {name: (stage.items_in, stage.items_out) for name, stage in report.stages.items()}
    return run.kept, [marker.states for marker in run.markers], counts


@pytest.mark.parametrize("seed", range(10))
def test_delays_change_no_item_no_order_and_no_state(seed: int) -> None:
    delays = Delays(seed)
    assert _run(delays) == _run(None)
    assert {
        "send numbers->pure",
        "receive q->keep",
        "stage numbers",
        "stage pure",
        "stage keep",
        "lane a",
    } <= delays.points
