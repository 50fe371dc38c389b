from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import finding
from pipeline.config.composing import compose
from pipeline.config.errors import ConfigError
from pipeline.config.tree import Origins
from tests.config.conftest import Write


def problems(*sources: str, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose(sources, overrides)
    return [str(problem) for problem in caught.value.problems]


def test_a_file_wins_over_what_it_includes_and_a_later_include_over_an_earlier(write: Write) -> None:
    write("parts/one.yaml", "{a: 1, b: 1, c: 1, list: [1, 2]}")
    write("parts/two.yaml", "{b: 2, c: 2}")
    write("job.yaml", "include: [parts/one.yaml, parts/two]\nc: 3\nlist: [9]\n")
    tree = compose(["job.yaml"], [])
    assert tree.plain() == {"a": 1, "b": 2, "c": 3, "list": [9]}
    origins = Origins.of_tree(tree)
    assert [origins.of((key,)) for key in "abc"] == ["parts/one.yaml:1", "parts/two.yaml:1", "job.yaml:2"]


def test_includes_are_found_beside_the_file_that_names_them(write: Write) -> None:
    write("deep/job.yaml", "include: parts/one")
    write("deep/parts/one.yml", "include: ../../two\na: 1")
    write("two.yaml", "b: 2")
    assert compose(["deep/job"], []).plain() == {"a": 1, "b": 2}


def test_later_sources_and_overrides_win(write: Write) -> None:
    write("one.yaml", "run: {seed: 1, dir: x}")
    write("two.yaml", "run: {seed: 2}")
    tree = compose(["one", "two"], ["run.seed=3", "run.seed=4", "run.tags=[a, b]", "run.tags[1]=c"])
    assert tree.plain() == {"run": {"seed": 4, "dir": "x", "tags": ["a", "c"]}}
    assert Origins.of_tree(tree).of(("run", "seed")) == "override"


def test_override_values_are_yaml_or_else_text(write: Write) -> None:
    write("job.yaml", "")
    given = ["a=1", "b=", "c=10 steps", "d={x: 1}", "e=,", "f=*.csv", "g=\t", "h=a=b", "i='1'", "table[a.b]=1e-3"]
    assert compose(["job"], given).plain() == {
        "a": 1, "b": None, "c": "10 steps", "d": {"x": 1}, "e": ",", "f": "*.csv", "g": "\t", "h": "a=b", "i": "1",
        "table": {"a.b": 0.001},
    }  # fmt: skip


def test_a_mapping_given_as_an_override_merges(write: Write) -> None:
    write("job.yaml", "stages: {prefetch: {lookahead: 4}, lookup: }")
    tree = compose(["job"], ["stages.prefetch={max_ids: 9}", "stages.lookup.staleness=1"])
    assert tree.plain() == {"stages": {"prefetch": {"lookahead": 4, "max_ids": 9}, "lookup": {"staleness": 1}}}


def test_shipped_configs_are_found_by_name_from_anywhere(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shipped = tmp_path / "installed" / "configs"
    monkeypatch.setattr(finding, "SHIPPED", shipped)
    write("installed/configs/parts/model.yaml", "model: small")
    write("installed/configs/demo.yaml", "include: parts/model\na: 1")
    write("elsewhere/own.yaml", "include: demo")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("demo", "demo.yaml", "configs/demo", "configs/demo.yaml", "own"):
        assert compose([name], []).plain() == {"a": 1, "model": "small"}
    assert compose(["parts/model"], []).plain() == {"model": "small"}
    assert "did you mean 'demo'?" in problems("configs/dmo.yaml")[0]


def test_a_file_of_ones_own_wins_over_a_shipped_one(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(finding, "SHIPPED", tmp_path / "installed")
    write("installed/demo.yaml", "a: shipped")
    (tmp_path / "demo").mkdir()
    assert compose(["demo"], []).plain() == {"a": "shipped"}
    write("demo.yaml", "a: own")
    assert compose(["demo"], []).plain() == {"a": "own"}


def test_include_loops_are_refused_and_name_the_ring(write: Write) -> None:
    write("job.yaml", "include: one")
    write("one.yaml", "a: 1\ninclude: two")
    write("two.yaml", "include: one")
    assert problems("job") == ["two.yaml:1: the files include each other without end: one.yaml -> two.yaml -> one.yaml"]


def test_two_ways_to_one_file_are_no_loop(write: Write) -> None:
    write("job.yaml", "include: [one, two]")
    write("one.yaml", "include: base")
    write("two.yaml", "include: base")
    write("base.yaml", "a: 1")
    assert compose(["job"], []).plain() == {"a": 1}


def test_everything_that_is_wrong_is_said_at_once(write: Write) -> None:
    write("job.yaml", "a: 1\ninclude: [nowhere, bad, list, 5]")
    write("bad.yaml", "a: [1")
    write("list.yaml", "- 1")
    write("better.yaml", "include: [nowhere, bad, list]")
    (problem,) = problems("job")
    assert problem.startswith("job.yaml:2: include: found ['nowhere', 'bad', 'list', 5]")
    said = problems("better", overrides=("run", "a..b=1", "a={x: ", "a=[1]", "a[7]=1"))
    starts = (
        "better.yaml:1: there is no config 'nowhere' in .",
        "bad.yaml:1: not YAML",
        "list.yaml:1: a config is a mapping of keys, found list",
        "override 'run': 'run' has no '='",
        "override 'a..b=1': 'a..b' is no key path",
        "override 'a={x: ': not YAML",
        "override 'a[7]=1': a list of 1 stands here",
    )
    assert len(said) == len(starts)
    for text, start in zip(said, starts, strict=True):
        assert text.startswith(start)


def test_a_file_that_is_no_text_is_refused(write: Write, tmp_path: Path) -> None:
    write("job.yaml", "")
    (tmp_path / "job.yaml").write_bytes(b"a: \xff\xfe")
    assert "job.yaml cannot be read" in problems("job")[0]
