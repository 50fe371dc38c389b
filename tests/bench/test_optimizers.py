"""The sides of the optimizers' benchmark do the same work, and its line tells the faster peer."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.optim import OPTIMIZERS
from tools.bench import lookup_rowstream, lookup_work, optimizers, optimizers_torch
from tools.bench.optimizers import FBGEMM, OF_FBGEMM, OURS, START, TORCH, check_moves, speed_row

SMALL = {"ROWS": 400, "BATCH": 32, "FILL": 200}
KINDS = [
    "sgd",
    "adagrad",
    "rowwise_adagrad",
    "adam",
    "partial_rowwise_adam",
    "lamb",
    "partial_rowwise_lamb",
    "lars_sgd",
]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Few rows and ids; returns the first step's number."""
    for module in (lookup_work, lookup_rowstream, optimizers_torch):
        for name, number in SMALL.items():
            monkeypatch.setattr(module, name, number, raising=False)
    return SMALL["ROWS"] // SMALL["FILL"] + 1


@pytest.mark.parametrize("optimizer", KINDS)
def test_plain_torch_moves_rows_as_we_do(optimizer: str, small: int) -> None:
    ours = lookup_rowstream.Rowstream("uniform", optimizer, 4, 2, 1.0, START)
    theirs = optimizers_torch.Torch("uniform", optimizer, 4, 2, START, small)
    for side in (ours, theirs):
        side.run(6)
    check_moves(ours.rows(), theirs.rows())
    assert np.abs(ours.rows() - START).max() > 0
    with pytest.raises(RuntimeError, match="not do the same work"):
        check_moves(ours.rows(), START + 1.05 * (theirs.rows() - START))


def test_no_optimizer_is_left_out() -> None:
    assert set(KINDS) <= set(OPTIMIZERS)
    assert optimizers.NAME == "optimizers"


def test_a_line_tells_the_faster_peer_and_what_is_absent() -> None:
    times = {OURS: [1.0, 1.0, 9.0], TORCH: [8.0, 8.0], FBGEMM: [2.0, 4.0]}
    row = speed_row("uniform", "adagrad", times, {})
    assert (row.peer, row.met) == (FBGEMM, True)
    assert "3.00x the speed of the faster peer" in row.measured
    assert "torch.optim.Adagrad: 8.00 ms" in row.peer_measured
    assert "fbgemm-gpu-cpu 1.8.0: 3.00 ms" in row.peer_measured
    alone = speed_row("uniform", "adagrad", {OURS: [4.0], TORCH: [8.0]}, {})
    assert alone.met is False
    assert "absent: pip install" in alone.peer_measured
    assert "absent" not in speed_row("uniform", "adam", {OURS: [4.0], TORCH: [8.0]}, {}).peer_measured
    assert "adam" not in OF_FBGEMM
