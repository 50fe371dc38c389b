"""Each sabotage of the stream is caught, and without one the same checks pass."""

from __future__ import annotations

import pytest

from pipeline.stream import StreamError
from pipeline.wire import WireError
from tests.sabotage.caught import assert_caught
from tests.sabotage.stream import SABOTAGES
from tests.stream.forks import fork_and_check
from tests.stream.scenario import live_and_check
from tests.wire.crashes import crash_and_check

LIVES, CRASHES, FORKS = range(12), range(60), range(8)


def check_everything() -> None:
    for seed in CRASHES:
        crash_and_check(seed)
    for seed in LIVES:
        live_and_check(seed)
    for seed in FORKS:
        fork_and_check(seed)


def test_the_checks_pass_on_the_product() -> None:
    check_everything()


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_caught(name: str) -> None:
    assert_caught(SABOTAGES[name], check_everything, WireError, StreamError, name=name)
