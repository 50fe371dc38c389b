"""Pooling of rows that are at hand as a tensor: for those who read them through a snapshot.

The same definitions as ``Backend.gather_pool`` in ``cuda``; sums may round otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def pool_rows(
    rows_ud: torch.Tensor, inverse_n: torch.Tensor, offsets_b: Any, weights_n: torch.Tensor | None, pooling: str
) -> torch.Tensor:
    """[B, D] for sum and mean, [n, D] for none. Occurrence n is row ``inverse_n[n]`` times its weight; ``offsets_b`` is int64 [B + 1]."""
    if pooling == "none":
        values_nd = rows_ud[inverse_n]
        return values_nd if weights_n is None else values_nd * weights_n[:, None]
    pooled_bd = torch.nn.functional.embedding_bag(
        inverse_n, rows_ud, torch.from_numpy(offsets_b[:-1]), mode="sum", per_sample_weights=weights_n
    )
    if pooling == "sum":
        return pooled_bd
    counts_b = torch.from_numpy(np.maximum(np.diff(offsets_b), 1).astype(np.float32))
    return pooled_bd / counts_b[:, None]
