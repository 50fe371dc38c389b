"""Each sabotage of the backlog is caught, and without one the same checks pass."""

from __future__ import annotations

import pytest

from pipeline.stream import StreamError
from pipeline.wire import WireError
from tests.sabotage.backlog import SABOTAGES
from tests.sabotage.caught import assert_caught
from tests.stream import test_backlog as checks


def check_everything() -> None:
    for seed in range(6):
        for forgets in (False, True):
            life = checks.Life(seed, forgets=forgets)
            life.live(60)
            life.end()
    checks.test_a_stalled_transport_takes_no_more_memory_than_it_may(waits=False)


def test_the_checks_pass_on_the_product() -> None:
    check_everything()


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_caught(name: str) -> None:
    assert_caught(SABOTAGES[name], check_everything, WireError, StreamError, name=name)
