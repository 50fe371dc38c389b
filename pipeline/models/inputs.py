"""What a model is built for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """Pooled features, and features with pooling ``none``, by name and dim in order; number of dense columns."""

    names: tuple[str, ...]
    dims: tuple[int, ...]
    sequence_names: tuple[str, ...] = ()
    sequence_dims: tuple[int, ...] = ()
    num_dense: int = 0
