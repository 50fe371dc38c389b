"""A small module, and batches for it, for tests of one thing at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pipeline.modules import EmbeddingBags

TABLES: dict[str, Any] = {
    "user": {"dim": 8, "optimizer": {"kind": "sgd", "lr": 0.5}},
    "item": {"dim": 4, "optimizer": {"kind": "adam", "lr": 0.1}},
}
L1_ROWS = 64


def bags(**settings: Any) -> EmbeddingBags:
    return EmbeddingBags(TABLES, **{"store": {"l1_rows": L1_ROWS}, "threads": 2, "seed": 5, **settings})


def batch(number: int, samples: int = 6, ids: int = 200) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Batch ``number``: a few ids of many, bags of 0 to 3."""
    rng = np.random.default_rng(number)
    made = {}
    for name in TABLES:
        ends = np.cumsum(rng.integers(0, 4, samples))
        made[name] = (
            torch.from_numpy(rng.integers(-ids, ids, ends[-1])),
            torch.from_numpy(np.concatenate([[0], ends[:-1]])),
        )
    return made


def train(module: EmbeddingBags, number: int) -> None:
    loss(module(batch(number))).backward()  # type: ignore[no-untyped-call]


def loss(outs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Something whose gradients differ from element to element."""
    total = torch.zeros(())
    for out in outs.values():
        total = total + (out * out).sum() + torch.sin(out).sum()
    return total


def rows_of(module: EmbeddingBags) -> dict[str, torch.Tensor]:
    """Everything that the module has trained, and its step."""
    state = module.state_dict()
    step = state.pop("_extra_state")["step"]
    return {**state, "step": torch.tensor(step)}


def assert_same_rows(one: EmbeddingBags, other: EmbeddingBags) -> None:
    left, right = rows_of(one), rows_of(other)
    assert left.keys() == right.keys()
    for key, values in left.items():
        assert values.shape == right[key].shape, key
        assert values.numpy().tobytes() == right[key].numpy().tobytes(), f"{key} differs"
