"""A run that another version recorded: keys that it did not know are taken to be at their defaults."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from pipeline.session.accepting import accepted, filled_in
from pipeline.session.errors import NotAcceptable, OtherJob
from pipeline.session.settings import Settings
from tests.e2e.small import CONFIG

MACHINE = {"cpu": "x"}
NEW = ("hooks", "tables.user.admission", "tables.user.rounding", "tables.item.schedule", "dense_optimizer.schedule")
"""Keys that a run of an older version was recorded without."""


def tree(**tables: Any) -> dict[str, Any]:
    """The job as today's version records it, with other options of its tables."""
    job = copy.deepcopy(CONFIG)
    for name, options in tables.items():
        job["tables"][name] |= options
    return Settings.model_validate(job).model_dump(mode="json")


def without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    older = copy.deepcopy(config)
    for key in keys:
        *above, last = key.split(".")
        holder = older
        for name in above:
            holder = holder[name]
        del holder[last]
    return older


def resume(before: dict[str, Any], now: dict[str, Any], *accept: str) -> dict[str, Any]:
    recorded, today = ({"config": config, "environment": MACHINE} for config in (before, now))
    return accepted(Path("run"), recorded, today, accept)


def test_a_run_recorded_without_todays_keys_goes_on_at_their_defaults() -> None:
    now = tree()
    older = without(now, *NEW)
    assert older != now
    assert filled_in(older) == now
    assert resume(older, now) == {}


@pytest.mark.parametrize(
    ("options", "key"),
    [({"rounding": "nearest"}, "rounding"), ({"schedule": {"warmup_steps": 3}, "rounding": "nearest"}, "rounding")],
)
def test_a_new_key_that_is_not_at_its_default_is_refused_by_name(options: dict[str, Any], key: str) -> None:
    now = tree(user=options)
    with pytest.raises(OtherJob, match=rf"computed: tables.user.{key} was 'stochastic' and is 'nearest'\.") as caught:
        resume(without(now, *NEW), now)
    assert "schedule" not in str(caught.value), "a schedule may differ"
    assert resume(without(now, *NEW), now, f"tables.user.{key}") == {
        f"tables.user.{key}": {"was": "stochastic", "is": "nearest"}
    }


def test_one_that_rows_begin_with_cannot_be_accepted() -> None:
    now = tree(user={"admission": {"after": 2}})
    with pytest.raises(NotAcceptable, match=r"tables.user.admission"):
        resume(without(now, *NEW), now, "tables.user.admission")


def test_what_the_run_was_recorded_with_is_never_a_default() -> None:
    before = tree(user={"rounding": "nearest"})
    assert filled_in(before) == before
    with pytest.raises(OtherJob, match=r"tables.user.rounding was 'nearest' and is 'stochastic'"):
        resume(without(before, "hooks"), tree())


def test_a_config_that_todays_models_refuse_is_compared_as_it_stands() -> None:
    now = tree()
    before = without(now, "device") | {"gone": 1}
    with pytest.raises(OtherJob) as caught:
        resume(before, now)
    for said in ("gone was 1 and is '(not set)'", "device was '(not set)' and is 'auto'"):
        assert said in str(caught.value)
