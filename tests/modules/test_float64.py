"""Every optimizer under every pooling, weighted and not, through lookup, backward, update and the tiers: as float64 has it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from pipeline.modules import EmbeddingBags, Embeddings
from pipeline.optim import (
    AdagradOptions,
    AdamOptions,
    OptimizerOptions,
    PartialRowwiseAdamOptions,
    RowwiseAdagradOptions,
    SgdOptions,
)
from tests.cuda import cases
from tests.modules.float64 import IDS, DoubleTables, Feature, current_rows, furthest, random_batch
from tests.support.grids import grid

STEPS, DIMS = 20, {"sums": 8, "means": 20, "rows": 12}
POOLED = {
    "sum": Feature("sums"),
    "weighted_sum": Feature("sums", weighted=True),
    "mean": Feature("means", "mean"),
    "weighted_mean": Feature("means", "mean", weighted=True),
}
UNPOOLED = {"row": Feature("rows", "none"), "weighted_row": Feature("rows", "none", weighted=True)}


def module_of(features: Mapping[str, Feature], options: OptimizerOptions, **kept: str) -> EmbeddingBags | Embeddings:
    """L1 holds little more than a batch; what leaves it goes to disk."""
    make = Embeddings if features is UNPOOLED else EmbeddingBags
    wide = {"kind": "uniform", "low": -0.5, "high": 0.5}
    tables = {
        name: {"dim": DIMS[name], "optimizer": options.model_dump(), "init": wide, **kept}
        for name in dict.fromkeys(feature.table for feature in features.values())
    }
    named = {name: {"table": feature.table, "pooling": feature.pooling} for name, feature in features.items()}
    ssd = {"segment_bytes": 8192, "extent_bytes": 4096}
    return make(tables, named, store={"l1_rows": IDS * len(tables) * 7 // 8, "ssd": ssd}, threads=2, seed=7)


def train(module: EmbeddingBags | Embeddings, features: Mapping[str, Feature], expected: DoubleTables) -> float:
    """STEPS steps of fresh random bags; returns how far a pooled number was off at most."""
    random, off = np.random.default_rng(), 0.0
    for step in range(1, STEPS + 1):
        batch = random_batch(random, features, DIMS)
        outs = module({name: bags.as_input() for name, bags in batch.items()})
        for name, bags in batch.items():
            off = max(off, float(np.abs(outs[name].detach().numpy() - expected.pooled(name, bags)).max(initial=0)))
        loss = sum(((outs[name] * torch.from_numpy(bags.gradients)).sum() for name, bags in batch.items()))
        loss.backward()
        expected.step(batch, step)
    return off


@pytest.mark.parametrize("features", [POOLED, UNPOOLED], ids=["pooled", "unpooled"])
@pytest.mark.parametrize("options", cases.OPTIMIZERS, ids=lambda options: options.kind)
def test_twenty_steps_are_those_of_float64(options: OptimizerOptions, features: dict[str, Feature]) -> None:
    with module_of(features, options) as module:
        expected = DoubleTables(features, options, current_rows(module))
        off = train(module, features, expected)
        assert furthest(current_rows(module), expected.rows) <= 1e-6
        assert off <= 5e-6  # sums of up to four rows, each within 1e-6 and with weights of up to 1.5
        assert module._engine.store.counters.evictions > 0


FREE: tuple[OptimizerOptions, ...] = (
    SgdOptions(lr=0.3),
    AdagradOptions(lr=0.07),
    RowwiseAdagradOptions(lr=0.05),
    AdamOptions(lr=0.02),
    PartialRowwiseAdamOptions(),
)
"""Whose steps depend on gradients alone: an error of a row stays as it is, so roundings add up and nothing multiplies them."""
MANTISSA = {"fp16": 10, "bf16": 7}


KEPT = [(weights, rounding) for weights in MANTISSA for rounding in ("stochastic", "nearest")]


@pytest.mark.parametrize(
    ("options", "kept"),
    grid(FREE, KEPT, always=[(options, KEPT[number % len(KEPT)]) for number, options in enumerate(FREE)]),
    ids=lambda value: getattr(value, "kind", None) or "-".join(value),
)
def test_in_16_bits_each_update_is_off_by_one_rounding(options: OptimizerOptions, kept: tuple[str, str]) -> None:
    """To nearest that is half the distance of two neighbours at most, by chance less than the whole; float64 rounds nothing."""
    weights, rounding = kept
    with module_of(POOLED, options, weights=weights, rounding=rounding) as module:
        expected = DoubleTables(POOLED, options, current_rows(module))
        train(module, POOLED, expected)
        for table, rows in current_rows(module).items():
            for number, row in rows.items():
                most = np.abs(expected.rows[table][number]).max() + 0.3  # along the way it may have been longer
                distance = 2.0 ** (np.floor(np.log2(most)) - MANTISSA[weights]) / (2 if rounding == "nearest" else 1)
                allowed = expected.updates[table][number] * distance + 1e-6
                assert np.abs(row - expected.rows[table][number]).max() <= allowed, (table, number)
