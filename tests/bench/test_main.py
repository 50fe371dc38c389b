"""The runner of the benchmarks, over benchmarks made for the purpose."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest

from pipeline.console import UsageError
from tools.bench.main import find, main
from tools.bench.report import BenchRow
from tools.bench.tables import markdown_table

SOUND = """
    from tools.bench.report import BenchRow
    NAME, HELP = "sound", "something that can be measured"
    def run(quick):
        knobs = {"rounds": 1 if quick else 5}
        return [BenchRow(NAME, "speed", "3 us", "peer 1.0", "6 us", "<= 5 us", True, knobs),
                BenchRow(NAME, "other", "1 us", knobs=knobs)]
"""
FAILING = """
    NAME, HELP = "failing", "something that breaks"
    def run(quick):
        raise OSError("no such disk")
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    # A package of its own for each test: modules stay loaded.
    name = f"benches_{abs(hash(request.node.nodeid))}"
    (tmp_path / name).mkdir()
    for file, text in (("__init__", ""), ("a_sound", SOUND), ("b_failing", FAILING), ("helper", "VALUE = 1")):
        (tmp_path / name / f"{file}.py").write_text(dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_modules_that_are_no_benchmark_are_left_alone(package: str) -> None:
    assert list(find(package)) == ["failing", "sound"]


def test_a_table_shows_figure_peer_goal_and_knobs(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sound"], quick=True, package=package) == 0
    shown = capsys.readouterr().out
    for said in ("3 us", "peer 1.0", "6 us", "<= 5 us", "yes", "knobs: rounds 1"):
        assert said in shown
    assert shown.count("knobs:") == 1


def test_a_failure_is_shown_the_others_run_and_the_code_is_1(
    package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    assert main([], quick=False, json_file=out, package=package) == 1
    captured = capsys.readouterr()
    assert "no such disk" in captured.err
    figures = json.loads(out.read_text())
    assert figures["benches"]["failing"][0]["measured"] == "failed: OSError: no such disk"
    assert figures["benches"]["sound"][0]["knobs"] == {"rounds": 5}
    assert figures["machine"]["cores"]


def test_a_name_that_is_none_is_refused_before_anything_runs(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        UsageError, match=r"no benchmark is named 'sond'; did you mean 'sound'\? There are: failing, sound"
    ):
        main(["failing", "sond"], quick=True, package=package)
    assert "failing" not in capsys.readouterr().out


def test_two_benchmarks_of_one_name_are_refused(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "c_again.py").write_text(dedent(SOUND))
    with pytest.raises(RuntimeError, match="two benchmarks are named 'sound'"):
        find(package)


def test_markdown_stands_between_markers_and_escapes_bars() -> None:
    text = markdown_table("x", [BenchRow("x", "a | b", "1", met=False, knobs={"n": 3})])
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == ("<!-- bench:x -->", "<!-- /bench:x -->")
    assert lines[3] == "| a \\| b | 1 | - | - | - | no |"
    assert "<sub>knobs: n 3</sub>" in lines


def test_the_projects_own_benchmarks_can_all_be_loaded() -> None:
    found = find()
    assert all(module.HELP for module in found.values())
    assert "streaming" in found
