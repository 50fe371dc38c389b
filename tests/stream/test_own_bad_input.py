"""Bad input of a loop without a store: each says what would have worked, and takes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import RowStreamer
from pipeline.stream import OwnRows
from pipeline.stream.errors import (
    BadRows,
    BadTables,
    CannotRead,
    NoSuchTable,
    StepWentBack,
    WrongMoment,
)
from tests.stream.test_own_rows import ITEM, ones, replica_of


@pytest.mark.parametrize(
    ("tables", "what"),
    [
        ({}, "no table is given"),
        ({"a b": {"dim": 2}}, r"table name 'a b' does not match \[A-Za-z0-9_.-\]\{1,128\}"),
        ({"x" * 129: {"dim": 2}}, "does not match"),
        ({"": {"dim": 2}}, "does not match"),
        ({"item": {"dim": 0}}, "dim: .*greater than or equal to 1"),
        ({"item": {"dims": 2}}, "dims: .*options are dim, codec"),
        ({"item": {"dim": 2, "codec": "fp7"}}, "fp7"),
        ({"item": {"dim": 2, "states": {"weight": 1}}}, "names each column once"),
        ({"item": {"dim": 2, "states": {"m": 0}}}, "at least one number wide"),
    ],
)
def test_tables_that_cannot_be_are_refused(tmp_path: Path, tables: Any, what: str) -> None:
    with pytest.raises(BadTables, match=what):
        RowStreamer(tables, tmp_path)


WIDE = {"item": {"dim": 2, "states": {"m": 1}, "identities": 3}}
GOOD: dict[str, Any] = {
    "ids": [1, 2],
    "rows": ones(2),
    "identities": np.zeros((2, 3), np.int64),
    "states": {"m": np.zeros((2, 1), np.float32)},
}


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"rows": ones(3)}, r"rows of 2 ids are float32 \[2, 2\]; got float32 \[3, 2\]"),
        ({"rows": np.ones((2, 3), np.float32)}, r"got float32 \[2, 3\]"),
        ({"rows": np.ones((2, 2))}, r"got float64 \[2, 2\]"),
        ({"rows": np.ones(4, np.float32)}, r"got float32 \[4\]"),
        ({"identities": np.zeros((2, 2), np.int64)}, r"identity of 2 ids are int64 \[2, 3\]; got int64 \[2, 2\]"),
        ({"identities": np.zeros((1, 3), np.int64)}, r"identity of 2 ids are int64 \[2, 3\]; got int64 \[1, 3\]"),
        ({"identities": np.zeros((2, 3), np.int32)}, "got int32"),
        ({"identities": None}, "m, weight were given; a row of it has identity, m, weight"),
        ({"states": {}}, "identity, weight were given"),
        ({"states": {"n": GOOD["states"]["m"]}}, "identity, n, weight were given"),
        ({"ids": [1.5, 2]}, r"ids are integers of 64 bits; got float64 \[2\]"),
        ({"ids": np.array([1, 2**63], np.uint64)}, "more than an int64 holds"),
        ({"rows": [[1, 2], [3]]}, "rows|weight are no array"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_nothing_of_them_is_taken(
    tmp_path: Path, changed: dict[str, Any], what: str
) -> None:
    with RowStreamer(WIDE, tmp_path) as streamer:
        with pytest.raises(BadRows, match=f"table 'item': .*{what}"):
            streamer.push("item", **{**GOOD, **changed})
        assert streamer.pushed_nbytes == 0
        streamer.push("item", **GOOD)
        streamer.end_step(1)
    with replica_of(tmp_path) as view:
        assert view.ids("item").tolist() == [1, 2]


@pytest.mark.parametrize("given", [np.ones((1, 3), np.float32), np.ones((1, 2)), "no rows", OwnRows(ones(1), held=[1])])
def test_a_reader_that_gives_something_else_is_told_and_its_rows_wait(tmp_path: Path, given: Any) -> None:
    answers: list[Any] = [given]
    with RowStreamer(
        ITEM, tmp_path, rows=lambda _, ids: answers.pop() if answers else ones(len(ids)), every=None
    ) as streamer:
        streamer.touch("item", [1])
        streamer.end_step(1)
        with pytest.raises(BadRows, match="table 'item': "):
            streamer.cut()
    with replica_of(tmp_path) as view:
        assert view.lookup("item", [1])[0, 0] == 1


@pytest.mark.parametrize("steps", [[3, 3], [3, 2], [0], [-1], [True], ["1"], [1.0]])
def test_steps_rise(tmp_path: Path, steps: Sequence[Any]) -> None:
    with RowStreamer(ITEM, tmp_path) as streamer:
        *before, wrong = steps
        for step in before:
            streamer.end_step(step)
        streamer.push("item", [1], ones(1))
        with pytest.raises(StepWentBack, match="steps are whole numbers that rise"):
            streamer.end_step(wrong)
        with pytest.raises(StepWentBack), streamer.step(wrong):
            raise AssertionError("the step began")
        streamer.end_step(9)
    with replica_of(tmp_path) as view:
        assert (view.step, view.ids("item").tolist()) == (9, [1])


def test_calls_at_the_wrong_moment_say_what_would_have_worked(tmp_path: Path) -> None:
    streamer = RowStreamer(ITEM, tmp_path)
    with pytest.raises(WrongMoment, match="with streamer:"):
        streamer.push("item", [1], ones(1))
    with streamer:
        with pytest.raises(NoSuchTable, match="no table 'itme' is streamed; the tables are item"):
            streamer.push("itme", [1], ones(1))
        with pytest.raises(CannotRead, match="give `rows`"):
            streamer.touch("item", [1])
        with streamer.step(1), pytest.raises(WrongMoment, match="ends its step itself"):
            streamer.end_step(1)
    with pytest.raises(WrongMoment):
        streamer.end_step(2)
