"""Each sabotage of best effort is caught, and without one the same checks pass."""

from __future__ import annotations

import pytest

from pipeline.stream import StreamError
from pipeline.wire import WireError
from tests.sabotage.caught import assert_caught
from tests.sabotage.effort import SABOTAGES
from tests.stream import test_best_effort
from tests.stream.effort import EffortLife

LIVES = range(10)


def check_everything() -> None:
    test_best_effort.test_the_rows_that_changed_most_go_first_and_frames_say_that_it_is_best_effort()
    test_best_effort.test_no_row_waits_longer_than_max_age_and_the_rest_keeps_to_the_budget()
    for seed in LIVES:
        life = EffortLife(seed, (300.0, 3000.0, 1e6)[seed % 3])
        life.live(40)
        life.finish()


def test_the_checks_pass_on_the_product() -> None:
    check_everything()


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_caught(name: str) -> None:
    assert_caught(SABOTAGES[name], check_everything, WireError, StreamError, name=name)
