"""Log loss is exact; AUC stays within the error it states of a plain exact AUC."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.models.metrics import BinaryMetrics

Floats = npt.NDArray[np.float32]


def exact_auc(logits: Floats, labels: Floats) -> float:
    """By ranks, ties one half: the definition."""
    order = np.argsort(logits, kind="stable")
    _, first, counts = np.unique(logits[order], return_index=True, return_counts=True)
    ranks = np.empty(len(logits))
    ranks[order] = np.repeat(first + (counts + 1) / 2, counts)
    positives = labels == 1
    p, n = positives.sum(), (~positives).sum()
    return float((ranks[positives].sum() - p * (p + 1) / 2) / (p * n))


def scored(rng: np.random.Generator, count: int, centre: float, spread: float) -> tuple[Floats, Floats]:
    logits = rng.normal(centre, spread, count).astype(np.float32)
    labels = (rng.random(count) < 1 / (1 + np.exp(-3 * logits))).astype(np.float32)
    return logits, labels


@pytest.mark.parametrize(("centre", "spread"), [(0.0, 1.0), (-1.4, 0.3), (0.0, 1e-3), (-9.0, 4.0)])
def test_auc_is_within_its_stated_error_of_the_exact_one(centre: float, spread: float) -> None:
    logits, labels = scored(np.random.default_rng(5), 40_000, centre, spread)
    labels[:2] = 0, 1
    metrics = BinaryMetrics()
    for start in range(0, len(logits), 1000):
        metrics.add(logits[start : start + 1000], labels[start : start + 1000])
    assert abs(metrics.auc - exact_auc(logits, labels)) <= metrics.auc_error + 1e-12
    assert metrics.auc_error < 2e-4
    assert metrics.count == 40_000


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-100, 100, width=32) | st.sampled_from([0.0, -0.0, math.inf, -math.inf]), st.booleans()),
        min_size=2,
        max_size=60,
    )
)
def test_auc_holds_its_bound_for_any_logits(samples: list[tuple[float, bool]]) -> None:
    logits = np.array([logit for logit, _ in samples], dtype=np.float32)
    labels = np.array([label for _, label in samples], dtype=np.float32)
    metrics = BinaryMetrics()
    metrics.add(logits, labels)
    if labels.min() == labels.max():
        assert math.isnan(metrics.auc)
    else:
        assert abs(metrics.auc - exact_auc(logits, labels)) <= metrics.auc_error + 1e-12


def test_log_loss_agrees_with_the_formula_also_for_large_logits() -> None:
    logits = np.array([0.3, -2.0, 500.0, -500.0, 40.0], dtype=np.float32)
    labels = np.array([1, 0, 1, 1, 0], dtype=np.float32)
    metrics = BinaryMetrics()
    metrics.add(logits, labels)
    expected = [math.log1p(math.exp(-float(logits[0]))), math.log1p(math.exp(-2.0)), 0.0, 500.0, 40.0]
    assert metrics.log_loss == pytest.approx(sum(expected) / 5, rel=1e-14)


def test_before_the_first_sample_there_is_no_value() -> None:
    metrics = BinaryMetrics()
    metrics.add(np.zeros(0, np.float32), np.zeros(0, np.float32))
    assert metrics.count == 0
    assert math.isnan(metrics.log_loss)
    assert math.isnan(metrics.auc)


def test_a_restored_metric_goes_on_exactly() -> None:
    rng = np.random.default_rng(3)
    through, stopped = BinaryMetrics(), BinaryMetrics()
    batches = [scored(rng, 500, 0.1, 2.0) for _ in range(6)]
    for batch in batches[:3]:
        through.add(*batch)
        stopped.add(*batch)
    resumed = BinaryMetrics()
    resumed.add(*batches[0])  # what it held before is forgotten
    resumed.restore(stopped.state())
    for batch in batches[3:]:
        through.add(*batch)
        resumed.add(*batch)
    assert (resumed.log_loss, resumed.auc, resumed.count) == (through.log_loss, through.auc, through.count)
    assert resumed.state() == through.state()


@pytest.mark.parametrize(
    ("logits", "labels", "says"),
    [([0.0], [0.5], "0 or 1, got 0.5"), ([math.nan], [1.0], "NaN"), ([0.0, 1.0], [1.0], "B")],
)
def test_bad_input_is_refused_and_counts_nothing(logits: list[float], labels: list[float], says: str) -> None:
    metrics = BinaryMetrics()
    with pytest.raises(ValueError, match=says):
        metrics.add(np.array(logits, np.float32), np.array(labels, np.float32))
    assert metrics.count == 0
    assert metrics.state()["keys"] == b""
