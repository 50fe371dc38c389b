"""Rows in float64, in a dict, changed one by one as ``tests.optim.test_formulas`` writes each optimizer: what a module is held against."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.modules import EmbeddingBags, Embeddings
from tests.optim.test_formulas import State, change

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
SAMPLES, LONGEST, IDS = 12, 4, 60


@dataclass(frozen=True)
class Feature:
    table: str
    pooling: str = "sum"
    weighted: bool = False


@dataclass(frozen=True)
class Bags:
    """Of one feature: ``weights_n`` None where it has none; ``gradients`` [B, dim], without pooling [n, dim]."""

    ids_n: npt.NDArray[np.int64]
    starts_b: npt.NDArray[np.int64]
    weights_n: Floats | None
    gradients: Floats

    def as_input(self) -> tuple[torch.Tensor, ...]:
        weights = () if self.weights_n is None else (self.weights_n,)
        return tuple(map(torch.from_numpy, (self.ids_n, self.starts_b, *weights)))


def random_batch(
    random: np.random.Generator, features: Mapping[str, Feature], dims: Mapping[str, int]
) -> dict[str, Bags]:
    """Fresh bags and gradients of each feature.

    In one step all gradients of a column have one sign. Where they do not, some sum of float32 numbers cancels down to its own rounding
    errors, and what Adagrad's first step of a weight makes of a sum near eps is as far off as it is: in any float32 implementation.
    """
    signs = {table: random.choice([-1.0, 1.0], dim) for table, dim in dims.items()}
    return {name: _random_bags(random, feature, signs[feature.table]) for name, feature in features.items()}


def _random_bags(random: np.random.Generator, feature: Feature, signs_d: Doubles) -> Bags:
    """Bags of 0 to LONGEST ids, so few of them that some come twice in a bag."""
    lengths_b = random.integers(0, LONGEST + 1, SAMPLES)
    count = int(lengths_b.sum())
    starts_b = np.cumsum(lengths_b) - lengths_b
    shape = (count if feature.pooling == "none" else SAMPLES, len(signs_d))
    weights_n = random.uniform(0.5, 1.5, count).astype(np.float32) if feature.weighted else None
    gradients = (signs_d * random.uniform(0.02, 0.4, shape)).astype(np.float32)
    return Bags(random.integers(0, IDS, count) ** 3, starts_b, weights_n, gradients)


class DoubleTables:
    """``options``: of every table; ``rows``: where they begin."""

    def __init__(
        self, features: Mapping[str, Feature], options: Any, rows: Mapping[str, Mapping[int, Doubles]]
    ) -> None:
        self.features, self.options = features, options
        self.rows = {table: dict(one) for table, one in rows.items()}
        self.updates = {table: dict.fromkeys(one, 0) for table, one in rows.items()}
        """How often each row was changed."""
        self._states: dict[tuple[str, int], State] = defaultdict(dict)

    def pooled(self, name: str, bags: Bags) -> Doubles:
        feature = self.features[name]
        out = np.zeros(bags.gradients.shape)
        for n, b, factor in self._terms(name, bags):
            out[n if feature.pooling == "none" else b] += factor * self.rows[feature.table][int(bags.ids_n[n])]
        return out

    def step(self, batch: Mapping[str, Bags], step: int) -> None:
        sums: dict[tuple[str, int], Any] = defaultdict(float)
        for name, bags in batch.items():
            feature = self.features[name]
            for n, b, factor in self._terms(name, bags):
                line = bags.gradients[n if feature.pooling == "none" else b].astype(np.float64)
                sums[feature.table, int(bags.ids_n[n])] += factor * line
        for (table, number), gradient in sums.items():
            row = self.rows[table][number]
            self.updates[table][number] += 1
            self.rows[table][number] = change(self.options, self._states[table, number], row, gradient, step)

    def _terms(self, name: str, bags: Bags) -> list[tuple[int, int, float]]:
        """(n, bag, what the row is multiplied with) of each id."""
        ends_b = [*bags.starts_b[1:].tolist(), len(bags.ids_n)]
        mean = self.features[name].pooling == "mean"
        return [
            (n, b, (1.0 if bags.weights_n is None else float(bags.weights_n[n])) / (end - start if mean else 1))
            for b, (start, end) in enumerate(zip(bags.starts_b.tolist(), ends_b, strict=True))
            for n in range(start, end)
        ]


def current_rows(module: EmbeddingBags | Embeddings) -> dict[str, dict[int, Doubles]]:
    """All rows that batches can ask for."""
    ids = np.arange(IDS) ** 3
    found = {table: module.fetch_rows(table, ids).weights_nd.astype(np.float64) for table in module.settings.tables}
    return {table: dict(zip(ids.tolist(), rows, strict=True)) for table, rows in found.items()}


def furthest(found: Mapping[str, Mapping[int, Doubles]], expected: Mapping[str, Mapping[int, Doubles]]) -> float:
    """The largest difference of two weights."""
    return max(
        float(np.abs(row - expected[table][number]).max())
        for table, rows in found.items()
        for number, row in rows.items()
    )
