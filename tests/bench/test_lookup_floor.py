"""The floor of the lookup benchmark does the work it says: rows out, summed gradients in."""

from __future__ import annotations

import numpy as np
import pytest

from tools.bench import lookup_floor
from tools.bench.lookup_work import BATCH, DIM, LR, TABLES, Work, make_gradient

ROWS = 500
"""Of each table."""


def test_each_row_comes_out_and_is_changed_by_all_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng()
    steps_sn = random.integers(0, ROWS, (2, TABLES * BATCH))
    monkeypatch.setattr(lookup_floor, "ROWS", ROWS)
    monkeypatch.setattr(lookup_floor, "make_work", lambda *_: Work(steps_sn, make_gradient()))
    floor = lookup_floor.Floor("any", 2, 2)
    rows_sd = floor._rows_nb.view(np.float32)
    rows_sd[:] = random.standard_normal(rows_sd.shape, dtype=np.float32)
    before_sd = rows_sd.copy()
    floor.run(1)
    slots_n = (steps_sn[0].reshape(TABLES, BATCH) + np.arange(TABLES)[:, None] * ROWS).T.reshape(-1)
    gradients_nd = make_gradient().reshape(-1, DIM)
    assert np.array_equal(floor._out_b.view(np.float32).reshape(-1, DIM), before_sd[slots_n])
    expected_sd = before_sd.astype(np.float64)
    np.subtract.at(expected_sd, slots_n, LR * gradients_nd.astype(np.float64))
    assert np.allclose(rows_sd, expected_sd, atol=1e-4)
    assert not np.array_equal(rows_sd[slots_n[0]], before_sd[slots_n[0]])
