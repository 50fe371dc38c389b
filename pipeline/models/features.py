"""What a model is given of the embeddings. B samples; F pooled features; S the sum of their dims; D a dim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

LEAF_ALIGNMENT_BYTES = 64


def aligned_empty(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """An uninitialised contiguous tensor whose first element lies on a multiple of 64 bytes.

    A product on the CPU may take another path, and give other bits, for an input that is aligned otherwise.
    """
    count, size = int(np.prod(shape, dtype=np.int64)), torch.empty((), dtype=dtype).element_size()
    room = torch.empty(count + LEAF_ALIGNMENT_BYTES // size, dtype=dtype)
    skip = -room.data_ptr() % LEAF_ALIGNMENT_BYTES // size
    return room[skip : skip + count].view(tuple(shape))


@dataclass(frozen=True, slots=True)
class SequenceFeature:
    """A feature with pooling ``none``: one row per id, an autograd leaf [n, D]; sample b owns rows
    offsets_b[b]:offsets_b[b + 1].
    """

    values_nd: torch.Tensor
    offsets_b: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PooledFeatures:
    """The pooled features side by side in one autograd leaf, and the sequences apart."""

    names: tuple[str, ...]
    dims: tuple[int, ...]
    pooled_bs: torch.Tensor
    """float32 [B, S], feature after feature in the order of ``names``."""
    sequences: Mapping[str, SequenceFeature] = field(default_factory=dict)

    def stacked(self) -> torch.Tensor:
        """[B, F, D] without a copy. Raises ValueError when the dims differ."""
        if len(set(self.dims)) > 1:
            raise ValueError(
                f"features of dims {dict(zip(self.names, self.dims, strict=True))} cannot be stacked; use split()"
            )
        return self.pooled_bs.view(self.pooled_bs.shape[0], len(self.dims), self.dims[0] if self.dims else 0)

    def split(self) -> tuple[torch.Tensor, ...]:
        """One [B, dim] per feature.

        One operation, so backward writes the leaf's gradient once, not once per feature.
        """
        return torch.split(self.pooled_bs, list(self.dims), dim=1)
