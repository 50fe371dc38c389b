from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from pipeline.console.stage_docs import stage_lines
from pipeline.console.stage_pages import list_stages, option_fields, show_stage, type_name
from pipeline.flow import GraphError, Stage, StageOptions
from pipeline.flow.registry import find_stage, stage_names


class Bounds(BaseModel):
    low: float = Field(0.0, description="the least")


class SampleOptions(StageOptions):
    kind: Literal["sum", "mean"] = Field("sum", description="how to combine")
    rows: int = Field(description="how many")
    bounds: Bounds = Field(Bounds(), description="limits")
    columns: dict[str, Bounds] = Field(default_factory=dict, description="by name")
    files: tuple[Path, ...] = Field((), description="in order")
    strict: bool | None = None


class Sample(Stage):
    """Doubles every batch.

    And says so.
    """

    Options = SampleOptions
    consumes = produces = int
    effects = "none"
    lane = "compute"
    needs = {"store": object}

    def work(self, item: int) -> int:
        return 2 * item


def test_every_registered_stage_is_listed_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert list_stages() == 0
    shown = capsys.readouterr().out
    for name, line in stage_lines():
        assert name in shown
        assert line
        assert "\n" not in line
    assert [name for name, _ in stage_lines()] == stage_names()


def test_a_stage_page_shows_contract_options_and_docs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert show_stage(f"{__name__}:Sample") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for said in (
        "Doubles every batch. And says so.",
        "consumes int produces int effects none lane compute needs store",
        "kind 'sum' | 'mean' sum how to combine",
        "rows int (required) how many",
        "bounds.low float 0.0 the least",
        "columns dict[str, mapping] {} by name",
        "columns.NAME.low float 0.0 the least",
        "files tuple[Path, ...] () in order",
        "strict bool | null null",
        "on_error 'fail' | 'skip' | 'dead_letter' fail",
    ):
        assert said in shown


def test_a_misspelt_stage_is_refused_with_the_nearest() -> None:
    with pytest.raises(GraphError, match="did you mean 'prefetch'"):
        show_stage("prefech")


def test_parts_that_hold_themselves_end() -> None:
    keys = [key for key, _ in option_fields(Tree)]
    assert keys[:2] == ["left", "left.left"]
    assert len(keys) < 10


class Tree(BaseModel):
    left: Tree | None = None


def test_types_read_as_people_write_them() -> None:
    assert type_name(list[int] | None) == "list[int] | null"
    assert type_name(Annotated[dict[str, Bounds | int], Field()]) == "dict[str, mapping | int]"


@pytest.mark.parametrize("name", stage_names())
def test_every_registered_stage_is_there_and_says_what_it_does(name: str) -> None:
    found = find_stage(name)
    assert found.__doc__
    assert dict(stage_lines())[name] == found.__doc__.partition("\n")[0]
    for key, field in option_fields(found.Options):
        assert field.description or "." in key, f"option {key} of stage {name} has no description"
