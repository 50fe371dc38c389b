"""Each sabotage of a loop's own rows is caught, and without one the same check passes."""

from __future__ import annotations

import pytest

from pipeline.stream import StreamError
from tests.sabotage.caught import assert_caught
from tests.sabotage.own import SABOTAGES
from tests.stream.oracle import Seen
from tests.stream.own_loop import loop_and_check

SEEDS = range(8)


def check_everything() -> list[Seen]:
    return [loop_and_check(seed) for seed in SEEDS]


def test_the_check_passes_on_the_product() -> None:
    seen = check_everything()
    assert sum(one.rewinds for one in seen) > 3
    assert sum(one.dead for one in seen) > 20
    assert sum(one.rows for one in seen) > 500


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_caught(name: str) -> None:
    assert_caught(SABOTAGES[name], check_everything, StreamError, name=name)
