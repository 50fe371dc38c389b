"""The ids of the lookup benchmark: as skewed as they say, the same on both sides."""

from __future__ import annotations

import numpy as np
import pytest

from stages.sources.reuse import reuse_table
from tools.bench import lookup_work
from tools.bench.lookup_work import ROWS, TABLES, make_work

STEPS = 20


def distinct_share(distribution: str) -> float:
    """Distinct (table, id) pairs of a batch, of all its ids."""
    ids_tb = make_work(distribution, STEPS).steps_sn[0].reshape(TABLES, -1)
    return float(len(np.unique(ids_tb + np.arange(TABLES)[:, None] * ROWS)) / ids_tb.size)


def test_the_more_skewed_the_fewer_distinct_ids() -> None:
    shares = [distinct_share(name) for name in ("zipf 1.2", "zipf 1.05", "reuse 2022", "uniform")]
    assert shares == sorted(shares)
    assert shares[0] < 0.4 < 0.6 < shares[2] < 0.8 < 0.95 < shares[3]


def test_ids_with_the_reuse_of_a_year_recur_as_its_histogram_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over one whole period every id has come, and as many accesses went to each bin as the histogram has."""
    monkeypatch.setattr(lookup_work, "ROWS", 2000)
    table = reuse_table("2022", 2000, None)
    steps = -(-table.period // lookup_work.BATCH)
    ids_n = make_work("reuse 2022", steps).steps_sn.reshape(steps, TABLES, -1)[:, 3].reshape(-1)[: table.period]
    _, counts = np.unique(ids_n, return_counts=True)
    expected = [
        count
        for accesses, used in zip(table.accesses_i.tolist(), table.used_i.tolist(), strict=True)
        for count in np.diff(np.arange(used + 1) * accesses // max(used, 1)).tolist()
    ]
    assert sorted(counts.tolist()) == pytest.approx(sorted(expected), abs=1)


def test_tables_have_other_ids_in_front_and_both_sides_the_same() -> None:
    first, again = (make_work("reuse 2022", STEPS) for _ in range(2))
    assert np.array_equal(first.steps_sn, again.steps_sn)
    assert np.array_equal(first.gradient_bd, make_work("uniform", 1).gradient_bd)
    ids_tn = first.steps_sn.reshape(STEPS, TABLES, -1).transpose(1, 0, 2).reshape(TABLES, -1)
    assert len({int(np.bincount(ids_n).argmax()) for ids_n in ids_tn}) > TABLES // 2
