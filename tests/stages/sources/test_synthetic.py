"""Synthetic samples: pure, as skewed as asked, and learnable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from stages.sources import SyntheticSource
from stages.sources.reuse import distinct_ids, reuse_table
from stages.sources.samples import Samples
from stages.sources.synthetic import SampleMaker
from stages.sources.synthetic_options import SyntheticOptions
from tests.stages.driving import bags_of, drive


def options(**chosen: Any) -> SyntheticOptions:
    return SyntheticOptions.model_validate({"samples": 1000, "features": {"a": {"ids": 100}}, **chosen})


def make(count: int, seed: int = 1, first: int = 0, **chosen: Any) -> Samples:
    return SampleMaker(options(**chosen), seed).make(first, count)


def test_a_sample_is_a_function_of_seed_and_position_alone() -> None:
    features = {"a": {"ids": 1000, "bag": [0, 4], "weights": True}, "b": {"ids": 500, "reuse": "2021"}}
    whole = make(100, features=features, dense=3)
    part = make(40, first=30, features=features, dense=3)
    expected = whole.cut(30, 70)
    for name in features:
        assert part.features[name].ids_n.tolist() == expected.features[name].ids_n.tolist()
        assert part.features[name].offsets_b.tolist() == expected.features[name].offsets_b.tolist()
    assert part.dense_bd.tolist() == expected.dense_bd.tolist()
    assert part.labels_b.tolist() == expected.labels_b.tolist()
    other = make(100, seed=2, features=features, dense=3)
    assert other.features["a"].ids_n.tolist() != whole.features["a"].ids_n.tolist()


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 1.3])
def test_zipf_ids_come_with_the_probabilities_of_the_law(exponent: float) -> None:
    count = 2_000_000
    ids_n = make(count, features={"a": {"ids": 50, "zipf": exponent}}).features["a"].ids_n
    expected_r = np.arange(1, 51) ** -exponent
    expected_r *= count / expected_r.sum()
    found_r = np.sort(np.bincount(ids_n, minlength=50))[::-1]
    # Six standard deviations; the sort of equal chances adds a little for exponent 0.
    assert (np.abs(found_r - expected_r) < 6 * np.sqrt(expected_r) + 1).all()


def test_popular_ids_lie_apart() -> None:
    ids_n = make(20_000, features={"a": {"ids": 10_000, "zipf": 1.2}}).features["a"].ids_n
    top = np.argsort(np.bincount(ids_n))[::-1][:20]
    assert np.abs(np.diff(top)).min() > 1
    assert ids_n.min() >= 0
    assert ids_n.max() < 10_000


@pytest.mark.parametrize("year", ["2021", "2022"])
def test_ids_recur_as_the_figures_say(year: str) -> None:
    period = 1 << 18
    ids = distinct_ids(year, period)
    ids_n = make(period, features={"a": {"ids": ids, "reuse": year, "period": period}}).features["a"].ids_n
    counts = np.bincount(ids_n, minlength=ids)
    assert (counts > 0).all()
    edges = [0, 1, 2, 4, 8, 16, 32, 64, 128]
    share_of_ids = np.histogram(counts, np.array(edges) + 0.5)[0] / ids
    figures = {
        "2021": [0.473, 0.152, 0.139, 0.112, 0.072, 0.032, 0.011, 0.005],
        "2022": [0.342, 0.144, 0.149, 0.138, 0.112, 0.068, 0.029, 0.01],
    }
    np.testing.assert_allclose(share_of_ids, figures[year], atol=0.02)
    assert ids / period == pytest.approx({"2021": 128435723 / 887017990, "2022": 110259238 / 1405163864}[year], rel=0.1)


def test_without_a_period_all_ids_are_used_in_one() -> None:
    table = reuse_table("2022", 5000, None)
    assert 4900 <= table.used_i.sum() <= 5000
    ids_n = make(int(table.period), features={"a": {"ids": 5000, "reuse": 2022}}).features["a"].ids_n
    assert len(np.unique(ids_n)) == table.used_i.sum()


def test_bags_and_weights_keep_their_bounds() -> None:
    bags = make(5000, features={"a": {"ids": 10, "bag": [0, 3], "weights": True}}).features["a"]
    assert set(np.diff(bags.offsets_b).tolist()) == {0, 1, 2, 3}
    assert bags.weights_n is not None
    assert 0.5 <= bags.weights_n.min() < bags.weights_n.max() < 1.5


def test_labels_follow_hidden_weights_that_a_held_out_set_shares() -> None:
    """The mean label of an id, learned on one seed, ranks the samples of another."""
    features = {"a": {"ids": 20, "zipf": 0.5}}
    train, test = make(50_000, features=features), make(20_000, seed=99, features=features)
    ids_n = train.features["a"].ids_n
    rates = np.bincount(ids_n, train.labels_b, 20) / np.bincount(ids_n, minlength=20)
    scores_b = rates[test.features["a"].ids_n]
    order_b = np.argsort(np.argsort(scores_b, kind="stable"), kind="stable") + 1
    positive_b = test.labels_b > 0
    num_positive, num_negative = positive_b.sum(), (~positive_b).sum()
    auc = (order_b[positive_b].sum() - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)
    assert auc > 0.75


def test_epochs_repeat_and_limits_hold() -> None:
    chosen = {
        "samples": 10,
        "batch_size": 4,
        "epochs": 2,
        "rows": {"skip": 2, "take": 6},
        "features": {"a": {"ids": 9}},
    }
    found = bags_of(drive(lambda: SyntheticSource(SyntheticSource.Options.model_validate(chosen))).batches, "a")
    assert len(found) == 12
    assert found[:6] == found[6:]


@pytest.mark.parametrize(
    ("feature", "what"),
    [
        ({"ids": 5, "zipf": 1.0, "reuse": "2021"}, "exclude each other"),
        ({"ids": 5, "period": 100}, "belongs to `reuse`"),
        ({"ids": 5, "reuse": "2021", "period": 100_000}, "distinct ids"),
        ({"ids": 5, "bag": [3, 1]}, "least, most"),
        ({"ids": 5, "reuse": 2020}, "2021"),
    ],
)
def test_features_that_make_no_sense_are_refused(feature: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        options(features={"a": feature})
