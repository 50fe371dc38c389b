"""Schedules are pure functions of the step."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.models.errors import ModelError
from pipeline.models.options import ScheduleOptions
from pipeline.models.schedules import build_schedule


def falling(step: int, *, by: float) -> float:
    return 1.0 - step * by


def broken(step: int) -> float:
    return math.nan if step > 2 else 1.0


@given(step=st.integers(1, 10**9))
def test_constant_is_always_one(step: int) -> None:
    assert build_schedule("constant", {})(step) == 1.0


def test_linear_and_cosine_go_from_one_to_the_final_factor_and_stay() -> None:
    for use in ("linear", "cosine"):
        factor = build_schedule(use, {"steps": 10, "final": 0.2})
        values = [factor(step) for step in range(1, 11)]
        assert values == sorted(values, reverse=True)
        assert factor(5) == pytest.approx(0.6)
        assert factor(10) == factor(10**6) == pytest.approx(0.2)


def test_step_decay_falls_after_every_so_many_steps() -> None:
    factor = build_schedule("step", {"every": 3, "factor": 0.5})
    assert [factor(step) for step in range(1, 8)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_warmup_rises_linearly_below_any_schedule() -> None:
    factor = build_schedule("constant", {}, warmup_steps=4)
    assert [factor(step) for step in range(1, 7)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_function_of_ones_own_is_called_with_its_options() -> None:
    assert build_schedule(f"{__name__}:falling", {"by": 0.25})(3) == 0.25


def test_a_schedule_that_gives_no_number_says_at_which_step() -> None:
    with pytest.raises(ModelError, match="nan at step 3"):
        build_schedule(f"{__name__}:broken", {})(3)


@pytest.mark.parametrize(
    ("use", "options", "says"),
    [
        ("cosin", {}, "did you mean 'cosine'"),
        ("linear", {}, "'steps' is needed"),
        ("linear", {"steps": 10, "end": 0}, "option 'end' is not known"),
        ("linear", {"steps": 0}, "at least 1"),
        ("cosine", {"steps": "ten"}, "numbers were expected"),
        ("step", {"every": 0}, "at least 1"),
        ("constant", {"step": 1}, "option 'step' is not known"),
    ],
)
def test_a_wrong_schedule_is_refused_when_the_config_is_read(use: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ScheduleOptions(use=use, options=options)


def test_an_option_a_function_does_not_take_is_refused_when_it_is_built() -> None:
    with pytest.raises(ModelError, match="did you mean 'by'"):
        build_schedule(f"{__name__}:falling", {"bye": 1.0})
