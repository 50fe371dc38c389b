from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.errors import ConfigError
from pipeline.config.reading import read_yaml, write_yaml
from pipeline.config.tree import Origins

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_written_is_read_back_on_one_line(value: Any) -> None:
    text = write_yaml(value)
    assert "\n" not in text
    assert read_yaml(text, "x").plain() == value
    assert yaml.safe_load(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("1e-3", 0.001),
        ("1_000_000", 1_000_000),
        ("0x10", 16),
        ("007", "007"),
        ("12:30", "12:30"),
        ("2017-10-01", "2017-10-01"),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("~", None),
        ("25ms", "25ms"),
        ("", None),
        ("{on: 1, 2: x}", {"on": 1, "2": "x"}),
    ],
)
def test_plain_words_mean_what_they_look_like(text: str, value: Any) -> None:
    found = read_yaml(text, "x").plain()
    assert (type(found), found) == (type(value), value)


def test_every_value_knows_its_line() -> None:
    origins = Origins.of_tree(read_yaml("run:\n  seed: 1\n\n  dir: x\nfiles:\n- a\n- b\n", "job.yaml"))
    lines = {("run",): 1, ("run", "seed"): 2, ("run", "dir"): 4, ("files",): 5, ("files", 1): 7}
    assert {key: origins.of(key) for key in lines} == {key: f"job.yaml:{line}" for key, line in lines.items()}


def test_anchors_and_merge_keys_work() -> None:
    tree = read_yaml("base: &base {dim: 8, lr: 1}\nuser:\n  <<: *base\n  dim: 16\n", "x")
    assert tree.plain()["user"] == {"dim": 16, "lr": 1}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not YAML"),
        ("a:\n\tb: 1\n", 2, "with spaces, not with tabs"),
        ("a: 1\nb: 2\na: 3\n", 3, "stands here and in line 1"),
        ("a: 1\nb: !!set {x}\n", 2, "the tag"),
        ("a: &loop\n  b: *loop\n", 1, "no end"),
        ("? [1, 2]\n: 3\n", 1, "a key has to be a word"),
        ("a: 1\n---\nb: 1\n", 2, "single document"),
        ("a: 1\nb: !!int x\n", 2, "'x'"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read_yaml(text, "job.yaml")
    assert caught.value.problems[0].where == f"job.yaml:{line}"


def test_control_characters_are_refused() -> None:
    with pytest.raises(ConfigError, match="not YAML"):
        read_yaml("a: \x00", "job.yaml")
