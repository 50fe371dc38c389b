"""What a model is given of the embeddings. B samples; F pooled features; S the sum of their dims; D a dim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

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


def _record(grads: dict[str, torch.Tensor], name: str, leaf: torch.Tensor) -> None:
    """A backward hook. It takes the accumulated gradient: holding the incoming one would make autograd copy it."""
    assert leaf.grad is not None
    grads[name] = leaf.grad


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
    _grads: dict[str, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    _hooks: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    def record_gradients(self) -> dict[str, torch.Tensor]:
        """What the next backward leaves on each leaf, by name of the feature; "" is the pooled leaf.

        Empty until then, and without the leaves that the model does not use. Hooks on the leaves fill it in and do nothing
        else. They stay, so leaves that are used again get none twice; what they recorded before is forgotten.
        """
        leaves = {"": self.pooled_bs} | {name: sequence.values_nd for name, sequence in self.sequences.items()}
        for name, leaf in leaves.items():
            leaf.grad = None
            if len(self._hooks) < len(leaves):
                self._hooks.append(leaf.register_post_accumulate_grad_hook(partial(_record, self._grads, name)))  # type: ignore[no-untyped-call]
        self._grads.clear()
        return self._grads

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
