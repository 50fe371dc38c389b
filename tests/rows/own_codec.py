"""A codec that the product does not have: signs and one size a row. What a package of somebody's own holds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Signs:
    """float32 size, the mean of the magnitudes, then a bit a weight: 1 where it is below zero. A mean that is no number counts as 0."""

    name = "signs"

    def row_bytes(self, dim: int) -> int:
        return 4 + -(-dim // 8)

    def encode(self, weights_nd: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        with np.errstate(all="ignore"):
            size_n1 = np.nan_to_num(np.abs(weights_nd.astype(np.float64)).mean(axis=1, keepdims=True)).astype("<f4")
        bits_nb = np.packbits(weights_nd < 0, axis=1)
        return np.concatenate([size_n1.view(np.uint8), bits_nb], axis=1)

    def decode(self, encoded_nb: npt.NDArray[np.uint8], dim: int) -> npt.NDArray[np.float32]:
        size_n1 = np.ascontiguousarray(encoded_nb[:, :4]).view("<f4")
        below_nd = np.unpackbits(encoded_nb[:, 4:], axis=1, count=dim).astype(bool)
        decoded: npt.NDArray[np.float32] = np.where(below_nd, -size_n1, size_n1).astype(np.float32)
        return decoded


SIGNS = Signs()
