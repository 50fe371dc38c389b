"""What fails: the first error wins and names its stage, everything is closed, nothing masks it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pipeline.flow import FlowError, Marker, Stage, StageContext, StageError
from tests.flow.samples import Inline, Numbers, OnLane, Run, graph_of, until, variant


class Boom(Exception):
    """What the stages of these tests raise."""


async def _raise_async(*_args: Any) -> Any:
    raise Boom("bang")


def _raise(*_args: Any) -> Any:
    raise Boom("bang")


async def _raise_in_items(_self: Any) -> AsyncIterator[int]:
    yield 1
    raise Boom("bang")


FAILING: list[tuple[str, type[Stage], str]] = [
    ("process", variant(Inline, process=_raise_async), "Boom: bang"),
    ("work", variant(OnLane, work=_raise), "Boom: bang"),
    ("ready", variant(Inline, ready=_raise_async), "Boom: bang"),
    ("open", variant(Inline, open=_raise_async), "open: Boom: bang"),
    ("init", variant(Inline, __init__=_raise), "Boom: bang"),
    ("restore", variant(Inline, restore=_raise), "open: Boom: bang"),
    ("mark", variant(Inline, mark=_raise_async), "marker 'end': Boom: bang"),
    ("state", variant(Inline, state=_raise), "marker 'end': Boom: bang"),
    ("drain", variant(Inline, drain=_raise_async), "drain: Boom: bang"),
    ("close", variant(Inline, close=_raise_async), "close: Boom: bang"),
]


@pytest.mark.parametrize(("stage", "says"), [row[1:] for row in FAILING], ids=[row[0] for row in FAILING])
@pytest.mark.parametrize("nbytes", [None, 1000])
def test_an_error_anywhere_in_a_stage_ends_the_run_and_names_the_stage(
    stage: type[Stage], says: str, nbytes: int | None
) -> None:
    queue = {"queue": {"bytes": nbytes}}
    run = Run(
        graph_of({"numbers": {}, "before": {"use": "inline"}, "it": queue, "keep": queue}, it=stage), restore={"it": 1}
    )
    with pytest.raises(StageError) as caught:
        run.go()
    assert str(caught.value) == f"stage 'it': {says}"
    assert caught.value.stage == "it"
    assert isinstance(caught.value.__cause__, Boom)


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"items": _raise_in_items}, "Boom: bang"),
        ({"items": _raise}, "Boom: bang"),
        ({"mark": _raise_async}, "marker 'end': Boom: bang"),
        ({"drain": _raise_async}, "drain: Boom: bang"),
    ],
)
def test_an_error_in_a_source_names_it_too(attributes: dict[str, Any], says: str) -> None:
    with pytest.raises(StageError) as caught:
        Run(graph_of({"source": {}, "keep": {}}, source=variant(Numbers, **attributes))).go()
    assert str(caught.value) == f"stage 'source': {says}"


def test_an_error_in_a_fused_visit_names_the_stage_that_raised() -> None:
    failing = variant(OnLane, work=_raise)
    nodes = {"numbers": {}, "p": {"use": "on_lane"}, "q": {}, "r": {"use": "on_lane"}}
    with pytest.raises(StageError, match="stage 'q': Boom"):
        Run(graph_of(nodes, q=failing)).go()


def test_an_error_in_a_background_task_ends_the_run_and_names_stage_and_task() -> None:
    async def open(_self: Stage, context: StageContext) -> None:
        context.spawn(_raise_async, "helper")

    with pytest.raises(StageError, match="stage 'p': task 'helper': Boom: bang"):
        Run(graph_of({"waiting": {}, "p": {}}, p=variant(Inline, open=open))).go()


def test_the_first_error_wins_and_later_ones_are_notes_on_it() -> None:
    async def fail_late(_self: Stage, _item: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            raise Boom("late")

    late = variant(Inline, process=fail_late)
    nodes: dict[str, Any] = {"numbers": {}, "inline": {}, "first": {"queue": {"items": 1}}, "late": {}}

    async def fail_on_three(self: Any, item: int) -> int:  # noqa: ARG001
        if item == 3:
            raise Boom("bang")
        return item

    first = variant(Inline, process=fail_on_three, close=_raise_async)
    with pytest.raises(StageError) as caught:
        Run(graph_of(nodes, first=first, late=late)).go()
    assert str(caught.value) == "stage 'first': Boom: bang"
    assert caught.value.__notes__ == [
        "then: StageError: stage 'late': Boom: late",
        "then: StageError: stage 'first': close: Boom: bang",
    ]


def test_what_on_marker_raises_is_raised_as_it_is() -> None:
    run = Run(graph_of({"numbers": {}, "inline": {}}), on_marker=_raise_async)
    with pytest.raises(Boom, match="bang") as caught:
        run.go()
    assert not hasattr(caught.value, "__notes__")


def test_what_on_progress_raises_ends_the_run() -> None:
    with pytest.raises(Boom, match="bang"):
        Run(graph_of({"waiting": {}, "inline": {}}), on_progress=_raise, progress_every_s=0.001).go()


def test_every_stage_whose_open_was_begun_is_closed_in_reverse_with_the_error() -> None:
    events: list[tuple[str, str]] = []

    class Noisy(Inline):
        name = ""

        async def open(self, context: StageContext) -> None:
            self.name = context.name
            if self.name == "b":
                raise Boom("bang")

        async def close(self, error: BaseException | None) -> None:
            events.append((self.name, str(error)))

    nodes: dict[str, Any] = {"numbers": {}, **{name: {"use": "noisy"} for name in "abc"}}
    with pytest.raises(StageError):
        Run(graph_of(nodes, noisy=Noisy)).go()
    assert events == [(name, "stage 'b': open: Boom: bang") for name in "ba"]


def test_a_close_that_hangs_is_cancelled_and_named_and_the_others_are_closed() -> None:
    closed: list[str] = []

    async def hang(_self: Stage, _error: BaseException | None) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.append("cancelled")

    async def close(_self: Stage, _error: BaseException | None) -> None:
        closed.append("closed")

    nodes: dict[str, Any] = {"numbers": {}, "fine": {}, "hung": {}}
    classes = {"fine": variant(Inline, close=close), "hung": variant(Inline, close=hang)}
    with pytest.raises(StageError, match=r"stage 'hung': close: FlowError: took longer than 0.01 s") as caught:
        Run(graph_of(nodes, **classes), close_timeout_s=0.01).go()
    assert closed == ["cancelled", "closed"]
    assert isinstance(caught.value.__cause__, FlowError)


def test_a_close_is_not_disturbed_by_a_background_task_that_fails_meanwhile() -> None:
    events: list[str] = []

    class Spawning(Inline):
        async def open(self, context: StageContext) -> None:
            self.fail = asyncio.Event()
            context.spawn(self.background, "helper")

        async def background(self) -> None:
            await self.fail.wait()
            raise Boom("bang")

        async def close(self, error: BaseException | None) -> None:
            assert error is None
            self.fail.set()
            for _ in range(10):
                await asyncio.sleep(0)
            events.append("second closed")

    async def close(_self: Stage, _error: BaseException | None) -> None:
        events.append("first closed")

    with pytest.raises(StageError, match="task 'helper': Boom"):
        Run(
            graph_of({"numbers": {}, "first": {}, "second": {}}, first=variant(Inline, close=close), second=Spawning)
        ).go()
    assert events == ["second closed", "first closed"]


def test_a_background_task_that_an_error_cancels_before_its_first_step_leaves_no_trace() -> None:
    """Nor does one asked for behind the error: no coroutine is left that nobody awaits."""
    told: list[str] = []

    class Spawning(Inline):
        async def open(self, context: StageContext) -> None:
            self.spawn, self.now = context.spawn, asyncio.Event()
            self.spawn(self.fail, "fails")

        async def fail(self) -> None:
            await self.now.wait()
            raise Boom("bang")

        async def background(self) -> None:
            told.append("ran")

        async def process(self, item: int) -> int:
            self.now.set()
            await asyncio.sleep(0)
            # Raised just now, and the group has yet to hear of it.
            self.spawn(self.background, "helper")
            return item

        async def close(self, error: BaseException | None) -> None:  # noqa: ARG002
            with pytest.raises(FlowError, match=r"stage 'p': task 'late' cannot start, the run is ending"):
                self.spawn(self.background, "late")
            told.append("closed")

    with pytest.raises(StageError, match="stage 'p': task 'fails': Boom") as caught:
        Run(graph_of({"numbers": {}, "p": {}}, p=Spawning)).go()
    gc.collect()
    assert told == ["closed"]
    assert getattr(caught.value, "__notes__", []) == []


def test_items_of_a_source_are_closed_when_a_later_stage_fails() -> None:
    closed: list[bool] = []

    class Careful(Numbers):
        async def items(self) -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
            finally:
                closed.append(True)

    with pytest.raises(StageError, match="stage 'p'"):
        Run(graph_of({"careful": {}, "p": {}}, careful=Careful, p=variant(Inline, process=_raise_async))).go()
    assert closed == [True]


def test_a_source_whose_cleanup_fails_does_not_mask_the_first_error() -> None:
    async def items(_self: Any) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            raise Boom("cleanup")

    p = variant(Inline, process=_raise_async)
    with pytest.raises(StageError) as caught:
        Run(graph_of({"s": {}, "p": {"queue": {"items": 1}}}, s=variant(Numbers, items=items), p=p)).go()
    assert str(caught.value) == "stage 'p': Boom: bang"


def test_a_marker_that_fails_while_the_source_waits_ends_the_run() -> None:
    async def mark(_self: Stage, _marker: Marker) -> None:
        raise Boom("bang")

    async def beside(run: Run) -> None:
        await until(lambda: len(run.kept) == 3)
        run.runner.request_marker()

    source = variant(graph_of({"waiting": {}}).stages[0].stage_class, mark=mark)
    with pytest.raises(StageError, match="stage 'source': marker: Boom: bang"):
        Run(graph_of({"source": {"count": 3}, "keep": {}}, source=source)).go(beside)


def test_no_item_behind_a_failed_one_is_begun_on_the_lane() -> None:
    begun: list[int] = []

    def work(_self: Stage, item: int) -> int:
        begun.append(item)
        if item == 5:
            raise Boom("bang")
        return item

    queue = {"queue": {"items": 64, "bytes": None}}
    with pytest.raises(StageError, match="stage 'it': Boom: bang") as caught:
        Run(graph_of({"numbers": {"count": 60}, "it": queue, "keep": queue}, it=variant(OnLane, work=work))).go()
    assert begun == [1, 2, 3, 4, 5]
    assert not hasattr(caught.value, "__notes__")
