"""What the planner refuses, one by one, and what it makes of a right graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from pipeline.flow import GraphError, Source, Stage, StageNode, StageOptions, plan
from tests.flow.samples import KNOWN, Inline, Numbers, OnLane, graph_of, variant

Pure = variant(Inline, effects="none")
PureOnLane = variant(OnLane, effects="none")
Text = variant(Inline, consumes=str, produces=str)
Undeclared = variant(Inline, produces=object)


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    depth: int = 1


class RichOptions(StageOptions):
    width: int = 1
    inner: Inner = Inner()


Rich = variant(Inline, Options=RichOptions)
NoWork = type("NoWork", (Stage,), {"consumes": int, "produces": int})
NoWorkOnLane = type("NoWorkOnLane", (Stage,), {"consumes": int, "produces": int, "lane": "a"})
NoItems = type("NoItems", (Source,), {"produces": int})

CLASSES = {
    **KNOWN,
    "pure": Pure,
    "pure_on_lane": PureOnLane,
    "text": Text,
    "undeclared": Undeclared,
    "rich": Rich,
    "no_work": NoWork,
    "no_work_on_lane": NoWorkOnLane,
    "no_items": NoItems,
}

Nodes = Mapping[str, Mapping[str, Any] | None]
START: Nodes = {"numbers": {}}


@pytest.mark.parametrize(
    ("nodes", "path", "says"),
    [
        ({}, "stages", "empty; the least is one source"),
        ({"inline": {}}, "stages.inline", "comes first, but Inline is no source"),
        ({**START, "more": {"use": "numbers"}}, "stages.more", "a source comes first; 'numbers' does"),
        ({**START, "text": {}}, "stages.text", "consumes str, but 'numbers' in front of it produces int"),
        ({**START, "undeclared": {}, "inline": {}}, "stages.inline", "'undeclared' .* object .*it sets no `produces`"),
        (
            {**START, "inline": {"retries": 1}},
            "stages.inline",
            "retries: 1: for stages with effects none only; Inline has",
        ),
        ({**START, "inline": {"concurrency": 2}}, "stages.inline", "concurrency: 2: for stages with effects none"),
        ({**START, "inline": {"on_error": "skip"}}, "stages.inline", "on_error: skip: for stages with effects none"),
        (
            {**START, "inline": {"on_error": "dead_letter", "dead_letter": "x"}},
            "stages.inline",
            "on_error: dead_letter: for stages with effects none",
        ),
        ({"numbers": {"concurrency": 2}}, "stages.numbers", "concurrency: 2.*is a source"),
        ({"numbers": {"queue": {"items": 2}}}, "stages.numbers.queue", "a source has no input channel"),
        ({**START, "keep": {}}, "stages.keep", "needs 'kept', which nobody opens; did you mean 'kep'.*kep, store"),
        ({**START, "rich": {"widht": 2}}, "stages.rich.widht", "unknown key; did you mean 'width'.*inner, max_skipped"),
        ({**START, "rich": {"queu": {}}}, "stages.rich.queu", r"unknown key; did you mean 'queue'\?"),
        (
            {**START, "rich": {"inner": {"dept": 2}}},
            "stages.rich.inner.dept",
            r"did you mean 'depth'\? Known keys: depth$",
        ),
        ({**START, "rich": {"queue": {"item": 2}}}, "stages.rich.queue.item", "did you mean 'items'"),
        ({**START, "rich": {"width": "wide"}}, "stages.rich.width", "valid integer.*found 'wide'"),
        ({**START, "rich": {"queue": {"items": 0}}}, "stages.rich.queue.items", "greater than or equal to 1, found 0"),
        (
            {**START, "rich": {"on_error": "ignore"}},
            "stages.rich.on_error",
            "'fail', 'skip' or 'dead_letter', found 'ignore'",
        ),
        ({**START, "pure": {"on_error": "dead_letter"}}, "stages.pure", "needs dead_letter: PATH"),
        ({**START, "pure": {"dead_letter": "x"}}, "stages.pure", "written by on_error: dead_letter only"),
        ({**START, "pure": {"max_skipped": 3}}, "stages.pure", "max_skipped: 3 means something with on_error"),
        ({**START, "no_work": {}}, "stages.no_work", "no process method, and no lane with a work method"),
        ({**START, "no_work_on_lane": {}}, "stages.no_work_on_lane", "names lane 'a' but has no work method"),
        ({"no_items": {}}, "stages.no_items", "a source without an items method"),
        ({**START, "a b": {"use": "inline"}}, "stages", "'a b' cannot be a name"),
    ],
)
def test_a_wrong_graph_is_refused_with_its_place_and_what_would_have_worked(nodes: Nodes, path: str, says: str) -> None:
    with pytest.raises(GraphError, match=says) as caught:
        plan(nodes, resources={"kep", "store"}, find=CLASSES.__getitem__)
    assert [problem.path for problem in caught.value.problems] == [path]


def test_two_stages_of_one_name_are_refused() -> None:
    nodes = [StageNode("numbers"), StageNode("inline"), StageNode("inline")]
    with pytest.raises(GraphError, match="two stages have this name"):
        plan(nodes, find=CLASSES.__getitem__)


def test_a_stage_that_nobody_knows_is_refused_at_its_key_or_at_use() -> None:
    with pytest.raises(GraphError) as caught:
        plan({"numbers": {"use": f"{Numbers.__module__}:Numbers"}, "a-name-nobody-has": {}, "b": {"use": "x:Y"}})
    assert [problem.path for problem in caught.value.problems] == ["stages.a-name-nobody-has", "stages.b.use"]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(GraphError) as caught:
        graph_of({"numbers": {"cuont": 1}, "inline": {"retries": 2}, "keep": {"x": 1}})
    assert len(caught.value.problems) == 3


def test_use_names_the_class_and_the_key_names_the_stage() -> None:
    graph = graph_of({"log": {"use": "numbers", "count": 3}, "first": {"use": "inline"}, "second": {"use": "inline"}})
    assert [(stage.name, stage.use) for stage in graph.stages] == [
        ("log", "numbers"),
        ("first", "inline"),
        ("second", "inline"),
    ]
    assert graph.stages[0].options == Numbers.Options.model_validate({"count": 3})


def test_a_disabled_stage_is_left_out_and_its_neighbours_must_meet() -> None:
    graph = graph_of({"numbers": None, "text": {"enabled": False}, "inline": {}}, text=Text)
    assert [stage.name for stage in graph.stages] == ["numbers", "inline"]


def test_policies_are_accepted_where_there_are_no_effects() -> None:
    options = {"concurrency": 3, "retries": 2, "on_error": "skip", "max_skipped": 5}
    graph = graph_of({"numbers": {}, "pure": options}, pure=Pure)
    assert graph.stages[1].runtime.policies() == ["concurrency: 3", "retries: 2", "on_error: skip"]


def test_a_subclass_of_what_is_consumed_meets_it() -> None:
    flags = variant(Numbers, produces=bool)
    assert len(graph_of({"flags": {}, "inline": {}}, flags=flags).stages) == 2


def test_neighbours_on_one_lane_share_a_visit() -> None:
    on_b = variant(OnLane, lane="b")
    graph = graph_of(
        {
            "numbers": {},
            "p": {"use": "on_lane"},
            "q": {"use": "on_lane"},
            "inline": {},
            "r": {"use": "on_lane"},
            "on_b": {},
        },
        on_b=on_b,
    )
    assert [visit.name for visit in graph.visits] == ["numbers", "p+q", "inline", "r", "on_b"]
    assert [visit.lane for visit in graph.visits] == [None, "a", None, "a", "b"]


async def _ready(_self: Any, _item: Any) -> None:
    return None


@pytest.mark.parametrize(
    ("second", "options"),
    [
        (variant(OnLane, ready=_ready), {}),
        (OnLane, {"queue": {"items": 2}}),
        (PureOnLane, {}),
        (PureOnLane, {"concurrency": 2}),
    ],
)
def test_what_must_wait_or_asks_for_a_channel_or_has_no_effects_is_not_fused(
    second: type[Stage], options: dict[str, Any]
) -> None:
    graph = graph_of({"numbers": {}, "on_lane": {}, "second": options}, second=second)
    assert [visit.name for visit in graph.visits] == ["numbers", "on_lane", "second"]


def test_the_picture_shows_every_stage_its_channel_and_its_lane() -> None:
    picture = graph_of(
        {"numbers": {}, "p": {"use": "on_lane", "queue": {"items": 2, "bytes": None}}, "q": {"use": "on_lane"}}
    ).describe()
    assert picture.splitlines() == [
        "numbers (tests.flow.samples:Numbers; source)",
        "  | 2 items",
        "p (tests.flow.samples:OnLane; effects ordered; lane a)",
        "+ q (tests.flow.samples:OnLane; effects ordered; lane a, same visit)",
    ]


def test_planning_starts_nothing() -> None:
    class Loud(Numbers):
        def __init__(self, options: Any) -> None:  # noqa: ARG002
            raise AssertionError("made while planning")

    graph_of({"loud": {}}, loud=Loud)
