"""The oracle of the arithmetic: plain torch, ``nn.Embedding`` tables, no code of the product but the initial rows.

It knows every id beforehand, holds each table whole, and updates it densely.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stages.items import RawBatch


@dataclass
class PlainFeature:
    name: str
    table: str
    pooling: str


class PlainTables:
    """One ``nn.Embedding`` per table over the ids that occur, its rows given."""

    def __init__(
        self, ids: Mapping[str, np.ndarray], initial: Mapping[str, np.ndarray], optimizer: str, lr: float, eps: float
    ) -> None:
        self.ids = ids
        self.tables = {
            name: torch.nn.Embedding(rows.shape[0], rows.shape[1], _weight=torch.tensor(rows))
            for name, rows in initial.items()
        }
        self.momentum = {name: torch.zeros(rows.shape[0]) for name, rows in initial.items()}
        self.optimizer, self.lr, self.eps = optimizer, lr, eps

    def pooled(self, batch: RawBatch, feature: PlainFeature) -> torch.Tensor:
        bags = batch.features[feature.name]
        positions = torch.from_numpy(np.searchsorted(self.ids[feature.table], bags.ids_n))
        rows_nd = self.tables[feature.table](positions)
        if bags.weights_n is not None:
            rows_nd = rows_nd * torch.from_numpy(bags.weights_n)[:, None]
        lengths_b = torch.from_numpy(np.diff(bags.offsets_b))
        bag_n = torch.repeat_interleave(torch.arange(batch.num_samples), lengths_b)
        summed_bd = torch.zeros(batch.num_samples, rows_nd.shape[1]).index_add(0, bag_n, rows_nd)
        if feature.pooling == "mean":
            return summed_bd / lengths_b.clamp(min=1)[:, None]
        return torch.tanh(summed_bd) if feature.pooling == "none" else summed_bd

    def step(self) -> None:
        with torch.no_grad():
            for name, table in self.tables.items():
                grad = table.weight.grad
                if grad is None:
                    continue
                if self.optimizer == "sgd":
                    table.weight -= self.lr * grad
                else:
                    self.momentum[name] += grad.square().mean(dim=1)
                    table.weight -= self.lr * grad / (self.momentum[name].sqrt() + self.eps)[:, None]
                table.weight.grad = None


def train_plainly(
    batches: Sequence[RawBatch],
    tables: PlainTables,
    features: Sequence[PlainFeature],
    dense: Mapping[str, np.ndarray],
    dense_lr: float,
) -> tuple[dict[str, np.ndarray], float]:
    """Two linear layers with the given weights (first.weight ...), plain SGD on them: Adagrad would turn the last bit of a gradient near
    zero into a whole step. Returns the dense weights, and the mean log loss of all samples, each before it was trained on."""
    weights = {name: torch.tensor(value, requires_grad=True) for name, value in dense.items()}
    optimizer = torch.optim.SGD(list(weights.values()), lr=dense_lr)
    total, samples = 0.0, 0
    for batch in batches:
        if batch.num_samples == 0:
            continue
        pooled = [tables.pooled(batch, feature) for feature in features if feature.pooling != "none"]
        sequences = [tables.pooled(batch, feature) for feature in features if feature.pooling == "none"]
        inputs = torch.cat([*pooled, torch.from_numpy(batch.dense_bd), *sequences], dim=1)
        hidden = torch.relu(inputs @ weights["first.weight"].T + weights["first.bias"])
        logits = (hidden @ weights["last.weight"].T + weights["last.bias"]).squeeze(1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(batch.labels_b))
        total, samples = total + float(loss.detach()) * batch.num_samples, samples + batch.num_samples
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        tables.step()
        optimizer.step()
    return {name: value.detach().numpy() for name, value in weights.items()}, total / samples


class PlainDlrm(torch.nn.Module):
    """DLRM over pooled features of one dim, without dense columns: their inner products, then an MLP with the given weights."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        for key in sorted((key for key in weights if key.endswith("weight")), key=lambda key: int(key.split(".")[1])):
            linear = torch.nn.Linear(*reversed(weights[key].shape))
            linear.load_state_dict(
                {part: torch.tensor(weights[key.replace("weight", part)]) for part in ("weight", "bias")}
            )
            layers += [linear, torch.nn.ReLU()]
        self.top = torch.nn.Sequential(*layers[:-1])

    def forward(self, pooled: Sequence[torch.Tensor]) -> torch.Tensor:
        products = [(pooled[i] * pooled[j]).sum(dim=1) for i in range(len(pooled)) for j in range(i)]
        return self.top(torch.stack(products, dim=1)).squeeze(1)  # type: ignore[no-any-return]


def train_dlrm_plainly(
    batches: Iterable[RawBatch],
    tables: PlainTables,
    features: Sequence[PlainFeature],
    model: PlainDlrm,
    optimizer: torch.optim.Optimizer,
) -> None:
    for batch in batches:
        logits = model([tables.pooled(batch, feature) for feature in features])
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(batch.labels_b)).backward()  # type: ignore[no-untyped-call]
        tables.step()
        optimizer.step()


def exact_auc(logits_n: np.ndarray, labels_n: np.ndarray) -> float:
    """The share of (positive, negative) pairs in the right order, ties one half: from mean ranks."""
    _, inverse_n, counts_u = np.unique(logits_n, return_inverse=True, return_counts=True)
    ranks_u = np.cumsum(counts_u) - (counts_u - 1) / 2
    positive_n = labels_n == 1
    positives, negatives = int(positive_n.sum()), int((~positive_n).sum())
    return float((ranks_u[inverse_n][positive_n].sum() - positives * (positives + 1) / 2) / (positives * negatives))
