"""The digest of the dense weights: equal exactly where every weight and buffer is, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch

from pipeline.models.arrays import Array, dense_arrays


def dense_digest(model: torch.nn.Module) -> str:
    """SHA-256 over name, dtype, shape and bytes of every weight and buffer, in the order of their names. Hex."""
    return digest_of_arrays(dense_arrays(model))


def digest_of_arrays(arrays: Mapping[str, Array]) -> str:
    """The same digest, from arrays."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name}\0{array.dtype.str}\0{list(arrays[name].shape)}\0".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
