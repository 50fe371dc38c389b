"""The runtime benchmark: it measures what it says, and names a peer that is absent."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from tools.bench import runtime


@pytest.mark.parametrize("kind", ["inline", "lane"])
def test_its_chain_has_a_channel_in_front_of_every_stage(kind: str) -> None:
    graph = runtime.our_graph(kind, 50, {"items": 2})
    assert len(graph.visits) == runtime.STAGES + 1
    assert runtime.time_ours(graph, 50) > 0


@pytest.fixture
def little_garbage() -> Iterator[None]:
    """The benchmark collects garbage before each run: let it not look through all that the tests have brought in so far."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("little_garbage")
def test_an_absent_peer_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spdl.pipeline", None)
    monkeypatch.setitem(sys.modules, "torchdata.nodes", None)
    monkeypatch.setattr(runtime, "ITEMS", {"inline": 40, "lane": 40})
    rows = [row for row in runtime.run(quick=True) if row.peer != "-"]
    assert [row.peer_measured.split(" (")[0] for row in rows] == [
        "absent: pip install spdl==0.8.0",
        "absent: pip install torchdata==0.11.0",
    ] * 2
    assert {row.met for row in rows} == {None}
