"""Finding stages by registered name and by package.module:Class."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.flow import GraphError, find_stage, stage_names
from tests.flow.samples import Inline

HERE = "tests.flow.samples"


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution on the import path that registers three names."""
    for name, entries in {
        "one": f"sample-inline = {HERE}:Inline\nsample-twice = {HERE}:Inline\nsample-wrong = {HERE}:graph_of\n",
        "two": f"sample-twice = {HERE}:OnLane\n",
    }.items():
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[rowstream.stages]\n{entries}")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])


@pytest.mark.usefixtures("registered")
def test_a_registered_name_finds_its_class() -> None:
    assert find_stage("sample-inline") is Inline
    assert "sample-inline" in stage_names()


def test_a_class_of_ones_own_is_found_by_module_and_name() -> None:
    assert find_stage(f"{HERE}:Inline") is Inline


@pytest.mark.usefixtures("registered")
def test_a_misspelt_name_is_refused_with_the_nearest_and_all_that_are_known() -> None:
    with pytest.raises(
        GraphError, match=r"'sample-inlin'; did you mean 'sample-inline'\?.*sample-wrong.*package.module:Class"
    ):
        find_stage("sample-inlin")


@pytest.mark.usefixtures("registered")
def test_a_name_that_two_distributions_register_is_refused_with_both() -> None:
    with pytest.raises(GraphError, match=r"two stages.*:Inline, .*:OnLane"):
        find_stage("sample-twice")


@pytest.mark.usefixtures("registered")
def test_what_is_no_stage_is_refused_by_name_and_by_path() -> None:
    with pytest.raises(GraphError, match="is a function"):
        find_stage("sample-wrong")
    with pytest.raises(GraphError, match="the class NumbersOptions; a stage is a subclass"):
        find_stage(f"{HERE}:NumbersOptions")


def test_a_misspelt_class_is_refused_with_the_nearest_stage_of_that_module() -> None:
    with pytest.raises(GraphError, match=r"no 'Inlin' in 'tests.flow.samples'; did you mean 'Inline'\?"):
        find_stage(f"{HERE}:Inlin")


@pytest.mark.parametrize(
    ("use", "says"),
    [
        ("no_such_module:Stage", "no module 'no_such_module'"),
        ("tests.no_such_module:Stage", "no module 'tests.no_such_module'"),
        (":Stage", "names no class"),
        ("tests.flow:", "names no class"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(use: str, says: str) -> None:
    with pytest.raises(GraphError, match=says):
        find_stage(use)


@pytest.mark.parametrize(
    ("text", "says"), [("import nothing_like_it", "needs 'nothing_like_it'"), ("1 / 0", "failed: ZeroDivisionError")]
)
def test_a_module_that_cannot_be_imported_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    (tmp_path / "a_broken_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(GraphError, match=says):
        find_stage("a_broken_module:Stage")
