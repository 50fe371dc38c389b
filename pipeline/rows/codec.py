"""Codecs: how weights travel on the wire. Arithmetic on integers only, so the bits are the same everywhere.

    fp32    the float32 bits, little endian
    fp16    IEEE binary16, little endian, rounded to nearest, ties to even. From 65,520 on a weight becomes infinity;
            one too small becomes a subnormal or a zero of its sign. A NaN keeps its sign and the top ten bits of its
            payload; were these all zero, the lowest is set, so that it stays a NaN.

Decoding is exact: every binary16 number is a float32 number; a NaN keeps sign and payload.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.rows.digest import TableRuns, tables_digest
from pipeline.rows.errors import BadShape, UnknownCodec
from pipeline.rows.half import decode_halves, digest_halves, encode_halves, encode_halves_hashed

if sys.byteorder != "little":
    raise ImportError("rows are stored and sent as they lie in memory, which needs a little-endian machine")


class Codec(Protocol):
    """Encodes weights and nothing else. Stateless; may run on any thread."""

    name: str

    def row_bytes(self, dim: int) -> int:
        """Bytes of one encoded row."""

    def encode(self, weights_nd: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """float32 [n, dim], each row contiguous -> a new array uint8 [n, row_bytes(dim)]."""

    def encode_hashed(self, weights_nd: npt.NDArray[np.float32], rows: TableRuns) -> tuple[npt.NDArray[np.uint8], int]:
        """``encode``, and the digest (``digest.tables_digest``) of the weights that a reader will decode."""

    def decode(self, encoded_nb: npt.NDArray[np.uint8], dim: int) -> npt.NDArray[np.float32]:
        """uint8 [n, row_bytes(dim)] -> a new array float32 [n, dim]. Raises BadShape."""

    def digest(self, encoded_nb: npt.NDArray[np.uint8], dim: int, rows: TableRuns) -> int:
        """The digest (``digest.tables_digest``) of the weights that ``decode`` gives. Raises BadShape."""


class Fp32:
    """See the module docstring."""

    name = "fp32"

    def row_bytes(self, dim: int) -> int:
        return 4 * dim

    def encode(self, weights_nd: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        return _as_bytes(np.array(_weights(weights_nd), order="C"))

    def encode_hashed(self, weights_nd: npt.NDArray[np.float32], rows: TableRuns) -> tuple[npt.NDArray[np.uint8], int]:
        encoded_nb = self.encode(weights_nd)
        return encoded_nb, tables_digest(rows, encoded_nb)

    def decode(self, encoded_nb: npt.NDArray[np.uint8], dim: int) -> npt.NDArray[np.float32]:
        return np.array(_encoded(encoded_nb, self, dim), order="C").view(np.float32).reshape(-1, dim)

    def digest(self, encoded_nb: npt.NDArray[np.uint8], dim: int, rows: TableRuns) -> int:
        return tables_digest(rows, _encoded(encoded_nb, self, dim))


class Fp16:
    """See the module docstring."""

    name = "fp16"

    def row_bytes(self, dim: int) -> int:
        return 2 * dim

    def encode(self, weights_nd: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        return _as_bytes(encode_halves(_weights(weights_nd)))

    def encode_hashed(self, weights_nd: npt.NDArray[np.float32], rows: TableRuns) -> tuple[npt.NDArray[np.uint8], int]:
        halves_nd, digest = encode_halves_hashed(_weights(weights_nd), rows)
        return _as_bytes(halves_nd), digest

    def decode(self, encoded_nb: npt.NDArray[np.uint8], dim: int) -> npt.NDArray[np.float32]:
        encoded_nb = _encoded(encoded_nb, self, dim)
        return decode_halves(encoded_nb.reshape(-1).view(np.uint16).reshape(-1, dim))

    def digest(self, encoded_nb: npt.NDArray[np.uint8], dim: int, rows: TableRuns) -> int:
        encoded_nb = _encoded(encoded_nb, self, dim)
        return digest_halves(encoded_nb.reshape(-1).view(np.uint16).reshape(-1, dim), rows)


CODECS: dict[str, Codec] = {codec.name: codec for codec in (Fp32(), Fp16())}


def find_codec(name: str) -> Codec:
    """The codec called ``name``. Raises UnknownCodec."""
    if name not in CODECS:
        raise UnknownCodec(name, list(CODECS))
    return CODECS[name]


def _weights(weights_nd: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if weights_nd.ndim != 2 or weights_nd.dtype != np.float32:
        raise BadShape(f"a codec encodes float32 [n, dim]; got {weights_nd.dtype} {weights_nd.shape}")
    return weights_nd


def _as_bytes(values_nd: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    count, width = values_nd.shape
    return values_nd.reshape(-1).view(np.uint8).reshape(count, width * values_nd.itemsize)


def _encoded(encoded_nb: npt.NDArray[Any], codec: Codec, dim: int) -> npt.NDArray[np.uint8]:
    if encoded_nb.dtype != np.uint8 or encoded_nb.ndim != 2 or encoded_nb.shape[1] != codec.row_bytes(dim):
        raise BadShape(
            f"codec {codec.name} decodes uint8 [n, {codec.row_bytes(dim)}] for dim {dim}; "
            f"got {encoded_nb.dtype} {encoded_nb.shape}"
        )
    return np.ascontiguousarray(encoded_nb)
