"""Tensors as plain numpy arrays, bit for bit, and the dense weights as a whole.

numpy has no bfloat16: such a tensor is kept as uint16 with the same bits, and its dtype is written beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.models.errors import StateMismatch

Array = npt.NDArray[Any]


def to_array(tensor: torch.Tensor) -> Array:
    """A copy as numpy array of the same bits."""
    plain = tensor.detach().cpu().contiguous()
    return (plain.view(torch.uint16) if plain.dtype is torch.bfloat16 else plain).numpy().copy()


def to_tensor(array: Array, dtype: torch.dtype) -> torch.Tensor:
    """The tensor that ``to_array`` made the array of."""
    tensor = torch.from_numpy(np.array(array))
    return tensor.view(torch.bfloat16) if dtype is torch.bfloat16 else tensor.to(dtype)


def dense_arrays(model: torch.nn.Module) -> dict[str, Array]:
    """Copies of all weights and buffers of the model, by their name in it."""
    return {name: to_array(tensor) for name, tensor in model.state_dict().items()}


def load_dense_arrays(model: torch.nn.Module, arrays: Mapping[str, Array]) -> None:
    """Put back what ``dense_arrays`` took.

    Raises StateMismatch when names or shapes differ; then nothing was changed.
    """
    own = model.state_dict()
    if set(own) != set(arrays):
        raise StateMismatch(f"dense weights: saved are {sorted(arrays)}, the model has {sorted(own)}")
    for name, tensor in own.items():
        if tuple(arrays[name].shape) != tuple(tensor.shape):
            raise StateMismatch(
                f"dense weight {name}: saved {tuple(arrays[name].shape)}, the model has {tuple(tensor.shape)}"
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(to_tensor(arrays[name], tensor.dtype))
