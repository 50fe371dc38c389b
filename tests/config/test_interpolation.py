from __future__ import annotations

import pytest

from pipeline.config.errors import ConfigError
from pipeline.config.interpolation import interpolate
from pipeline.config.tree import Node, node_of


def resolved(tree: object) -> object:
    return interpolate(node_of(tree, "job.yaml:1")).plain()


def test_references_take_the_value_and_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWSTREAM_SAMPLE", "/logs")
    monkeypatch.delenv("ROWSTREAM_ABSENT", raising=False)
    tree = {
        "dim": 64,
        "tables": {"user": {"dim": "${dim}"}, "item": "${tables.user}"},
        "files": ["${oc.env:ROWSTREAM_SAMPLE}/a.csv", "${oc.env:ROWSTREAM_ABSENT,../data}/b.csv"],
        "name": "dim-${dim}",
        "none": None,
    }
    assert resolved(tree) == {
        "dim": 64,
        "tables": {"user": {"dim": 64}, "item": {"dim": 64}},
        "files": ["/logs/a.csv", "../data/b.csv"],
        "name": "dim-64",
        "none": None,
    }


def test_a_resolved_value_keeps_the_origin_of_its_text() -> None:
    tree = Node({"a": Node({"x": Node(1, "job.yaml:2")}, "job.yaml:1"), "b": Node("${a}", "job.yaml:3")}, "job.yaml:1")
    origins = {key: node.origin for key, node in interpolate(tree).walk()}
    assert origins[("b",)] == origins[("b", "x")] == "job.yaml:3"


def test_keys_with_dots_are_no_obstacle() -> None:
    assert resolved({"a.b": {"c": "${x}"}, "x": 1}) == {"a.b": {"c": 1}, "x": 1}


def test_what_cannot_be_resolved_is_said_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROWSTREAM_ABSENT", raising=False)
    tree = {"a": "${nowhere}", "b": ["${oc.env:ROWSTREAM_ABSENT}"], "c": "${d}", "d": "${c}"}
    with pytest.raises(ConfigError) as caught:
        resolved(tree)
    said = [str(problem) for problem in caught.value.problems]
    assert [problem.split(":", 2)[2].split(":")[0].strip() for problem in said] == ["a", "b[0]", "c", "d"]
    assert "nowhere" in said[0]
    assert "ROWSTREAM_ABSENT" in said[1]


def test_malformed_ones_are_named_one_by_one() -> None:
    with pytest.raises(ConfigError) as caught:
        resolved({"a": "${", "b": "${x}", "c": ["${oc.env:"], "x": 1})
    assert [problem.key for problem in caught.value.problems] == [("a",), ("c", 0)]
