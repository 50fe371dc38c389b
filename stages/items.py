"""What travels between the built-in stages. Frozen; a stage makes a new item from the old one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FeatureIds:
    """The bags of one feature: sample b owns ``ids_n[offsets_b[b]:offsets_b[b + 1]]``; ``offsets_b`` is [B + 1], from 0 to n."""

    ids_n: Int64s
    offsets_b: Int64s
    weights_n: Float32s | None = None

    @property
    def nbytes(self) -> int:
        weights = 0 if self.weights_n is None else self.weights_n.nbytes
        return int(self.ids_n.nbytes + self.offsets_b.nbytes + weights)


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Samples as they come from a log. ``cursor`` says where the source stood behind the batch (for error messages)."""

    num_samples: int
    features: Mapping[str, FeatureIds]
    dense_bd: Float32s
    """[B, number of dense columns], the second size may be 0."""
    labels_b: Float32s
    """[B]; logs of positives only have ones here, before ``negatives``."""
    cursor: Mapping[str, Any] = field(default_factory=dict)
    first_row: int = 0
    """Number of the first sample in the source's order, counted from the start of the first epoch."""

    @property
    def nbytes(self) -> int:
        return sum(f.nbytes for f in self.features.values()) + int(self.dense_bd.nbytes + self.labels_b.nbytes)
