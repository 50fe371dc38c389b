"""Whatever happens in a stream's life: replicas are whole cuts only, and at the end the source itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.rows.codec.formulas import KINDS
from tests.stream.scenario import live_and_check


@given(st.integers(0, (1 << 32) - 1), st.sampled_from(sorted(KINDS)), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_a_replica_is_the_source_at_the_end_of_a_step_and_at_last_the_source(
    seed: int, codec: str, events: int
) -> None:
    live_and_check(seed, codec, events)


@pytest.mark.long
@given(st.integers(0, (1 << 32) - 1), st.sampled_from(sorted(KINDS)), st.integers(0, 300))
@settings(max_examples=2000, deadline=None)
def test_the_same_for_longer(seed: int, codec: str, events: int) -> None:
    live_and_check(seed, codec, events)
