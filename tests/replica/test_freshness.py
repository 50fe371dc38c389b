"""Freshness: bounded memory, quantiles at most one bucket too high, the maximum exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.replica import Freshness, Replica
from tests.replica.trainer import DictTrainer, MemoryTransport

MS = 1_000_000


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=200), st.sampled_from([0.5, 0.99, 1.0]))
def test_a_quantile_is_at_most_two_percent_above_the_exact_one(waits_ns: list[int], share: float) -> None:
    freshness = Freshness(0)
    now = 10**12
    for wait in waits_ns:
        freshness.add(np.array([now - wait]), now)
    exact_ms = float(np.quantile(waits_ns, share, method="inverted_cdf")) / MS
    assert exact_ms * 0.999 <= freshness.quantile_ms(share) <= max(exact_ms * 1.021, 0.001)
    assert freshness.max_ms == pytest.approx(max(waits_ns) / MS)
    assert freshness.steps == len(waits_ns)


def test_before_the_first_step_there_is_no_figure() -> None:
    assert Freshness(0).as_dict() == {"p50": None, "p99": None, "max": None, "steps": 0, "earlier_steps": 0}


def test_a_clock_that_was_set_back_counts_as_no_wait() -> None:
    freshness = Freshness(0)
    freshness.add(np.array([500 * MS]), 400 * MS)
    assert (freshness.as_dict()["max"], freshness.steps) == (0.0, 1)


def test_every_step_is_counted_when_its_cut_becomes_visible() -> None:
    now = [1000 * MS]
    trainer, transport = DictTrainer({"a": 2}), MemoryTransport()
    transport.begin(trainer.header())
    replica = Replica(transport, clock=lambda: now[0])  # type: ignore[arg-type]
    trainer.update({"a": [1]}, clock_ns=900 * MS)  # before the replica was there
    for ended in (1010, 1020, 1030):
        trainer.update({"a": [1]}, clock_ns=ended * MS)
    transport.publish(trainer.cut())
    now[0] = 1040 * MS
    replica.apply_available()
    figures = replica.freshness_ms()
    assert figures["p50"] == pytest.approx(20, rel=0.021)
    assert (figures["max"], figures["steps"], figures["earlier_steps"]) == (30.0, 3, 1)
