"""The built-in codecs as objects, around the kernels."""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.rows.arrays import row_words
from pipeline.rows.codec.base import Codec, Float32s, RowBytes, checked_rows, checked_weights
from pipeline.rows.codec.formulas import KINDS, row_bytes
from pipeline.rows.codec.kernels import decode_rows, encode_rows, encode_rows_hashed, hash_rows
from pipeline.rows.digest import TableRuns


class BuiltIn:
    """One of ``formulas.KINDS``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = KINDS[name]

    def row_bytes(self, dim: int) -> int:
        return row_bytes(self.kind, dim)

    def encode(self, weights_nd: Float32s) -> RowBytes:
        encoded_nb = self._room(checked_weights(weights_nd))
        if encoded_nb.size:
            words_w, stride = row_words(weights_nd)
            encode_rows(self.kind, words_w, weights_nd.shape[1], stride, encoded_nb.shape[1], encoded_nb.reshape(-1))
        return encoded_nb

    def encode_hashed(self, weights_nd: Float32s, rows: TableRuns) -> tuple[RowBytes, int]:
        encoded_nb = self._room(checked_weights(weights_nd))
        if not encoded_nb.size:
            return encoded_nb, 0
        words_w, stride = row_words(weights_nd)
        shape = weights_nd.shape[1], stride, encoded_nb.shape[1]
        total = encode_rows_hashed(self.kind, words_w, *shape, encoded_nb.reshape(-1), *rows.for_kernels())
        return encoded_nb, int(total)

    def decode(self, encoded_nb: RowBytes, dim: int) -> Float32s:
        encoded_nb = checked_rows(encoded_nb, self, dim)
        bits_nd = np.empty((encoded_nb.shape[0], dim), dtype=np.uint32)
        decode_rows(self.kind, encoded_nb.reshape(-1), dim, encoded_nb.shape[1], bits_nd.reshape(-1))
        return bits_nd.view(np.float32)

    def digest(self, encoded_nb: RowBytes, dim: int, rows: TableRuns) -> int:
        encoded_nb = checked_rows(encoded_nb, self, dim)
        return int(hash_rows(self.kind, encoded_nb.reshape(-1), dim, encoded_nb.shape[1], *rows.for_kernels()))

    def _room(self, weights_nd: Float32s) -> RowBytes:
        count, dim = weights_nd.shape
        return np.empty((count, self.row_bytes(dim)), dtype=np.uint8)


BUILT_IN: Final[dict[str, Codec]] = {name: BuiltIn(name) for name in KINDS}
