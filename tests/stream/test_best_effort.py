"""Best effort: what goes first, what it costs, how old what waits gets, and that nothing is forgotten, whatever fails."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stream.effort import EffortLife

seeds = st.integers(0, (1 << 32) - 1)
budgets = st.sampled_from([1.0, 300.0, 3000.0, 1e6])


@given(seeds, budgets, st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_each_row_is_one_of_the_trainers_and_never_goes_back_and_at_last_all_are_there(
    seed: int, budget: float, events: int
) -> None:
    life = EffortLife(seed, budget)
    life.live(events)
    life.finish()


@pytest.mark.long
@given(seeds, budgets, st.integers(0, 300))
@settings(max_examples=2000, deadline=None)
def test_the_same_for_longer(seed: int, budget: float, events: int) -> None:
    life = EffortLife(seed, budget)
    life.live(events)
    life.finish()
