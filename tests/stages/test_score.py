"""Progressive metrics: every batch counts once, in any order of stages behind the step, and on from a saved state."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.models.metrics import BinaryMetrics
from stages.items import Scores, Stepped
from stages.score import Score


def made(metrics: BinaryMetrics) -> Score:
    stage = Score(Score.Options())
    stage._metrics = metrics
    return stage


def test_scores_are_counted_once_and_go_no_further() -> None:
    rng = np.random.default_rng(0)
    metrics, expected = BinaryMetrics(), []
    stage = made(metrics)
    for step in range(1, 4):
        logits, labels = rng.normal(size=50).astype(np.float32), rng.integers(0, 2, 50).astype(np.float32)
        signs = np.where(labels == 1, -1.0, 1.0)
        expected += np.log1p(np.exp(signs * logits.astype(np.float64))).tolist()
        passed = stage.work(Stepped(step, 50, None, Scores(logits, labels)))
        assert (passed.step, passed.num_samples, passed.scores) == (step, 50, None)
        stage.work(passed)
    assert metrics.count == 150
    assert metrics.log_loss == pytest.approx(np.mean(expected), rel=1e-12)


def test_a_batch_without_samples_has_no_scores() -> None:
    metrics = BinaryMetrics()
    made(metrics).work(Stepped(1, 0, None))
    assert metrics.count == 0


def test_a_saved_state_goes_on_exactly() -> None:
    rng = np.random.default_rng(1)
    batches = [Scores(rng.normal(size=9).astype(np.float32), np.ones(9, np.float32)) for _ in range(4)]
    whole, first, second = (made(BinaryMetrics()) for _ in range(3))
    for step, scores in enumerate(batches):
        if step == 2:
            second.restore(first.state())
        whole.work(Stepped(step, 9, None, scores))
        (first if step < 2 else second).work(Stepped(step, 9, None, scores))
    assert second.state() == whole.state()
