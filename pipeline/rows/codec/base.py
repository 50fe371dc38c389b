"""What a codec is, and how it refuses arrays that it cannot take."""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.rows.digest import TableRuns
from pipeline.rows.errors import BadShape

ALIGNMENT: Final = 4
Float32s = npt.NDArray[np.float32]
RowBytes = npt.NDArray[np.uint8]


class RowCodec(Protocol):
    """Encodes weights and nothing else, each row by itself. Stateless; may run on any thread. This is all that a codec of one's own has."""

    name: str
    """Matches ``spec.NAME_PATTERN``. It stands in the stream, and readers know the codec by it."""

    def row_bytes(self, dim: int) -> int:
        """Bytes of one encoded row, 1 at least."""

    def encode(self, weights_nd: Float32s) -> RowBytes:
        """float32 [n, dim], each row contiguous -> a new array uint8 [n, row_bytes(dim)]. The same row gives the same bytes, whatever
        stands beside it.
        """

    def decode(self, encoded_nb: RowBytes, dim: int) -> Float32s:
        """uint8 [n, row_bytes(dim)], any bytes -> a new array float32 [n, dim]. Raises BadShape."""


class Codec(RowCodec, Protocol):
    """A codec with what a stream asks for besides."""

    @property
    def kind(self) -> int | None:
        """How kernels name it (``formulas``); None: no kernel knows it."""

    def encode_hashed(self, weights_nd: Float32s, rows: TableRuns) -> tuple[RowBytes, int]:
        """``encode``, and the digest (``digest.tables_digest``) of the weights that a reader will decode."""

    def digest(self, encoded_nb: RowBytes, dim: int, rows: TableRuns) -> int:
        """The digest (``digest.tables_digest``) of the weights that ``decode`` gives. Raises BadShape."""


def checked_weights(weights_nd: npt.NDArray[Any]) -> Float32s:
    """Raises BadShape for anything but float32 [n, dim]."""
    if weights_nd.ndim != 2 or weights_nd.dtype != np.float32:
        raise BadShape(f"a codec encodes float32 [n, dim]; got {weights_nd.dtype} {weights_nd.shape}")
    return weights_nd


def checked_rows(encoded_nb: npt.NDArray[Any], codec: RowCodec, dim: int) -> RowBytes:
    """The same, ``aligned``. Raises BadShape for anything but uint8 [n, codec.row_bytes(dim)]."""
    if encoded_nb.dtype != np.uint8 or encoded_nb.ndim != 2 or encoded_nb.shape[1] != codec.row_bytes(dim):
        raise BadShape(
            f"codec {codec.name} decodes uint8 [n, {codec.row_bytes(dim)}] for dim {dim}; "
            f"got {encoded_nb.dtype} {encoded_nb.shape}"
        )
    return aligned(encoded_nb)


def aligned(encoded_nb: RowBytes) -> RowBytes:
    """The rows as kernels read them: contiguous, from a multiple of 4 on, read-only; a view where they lie so already.

    Those of a frame do unless odd ones lie before them.
    """
    view = np.ascontiguousarray(encoded_nb).view()
    if view.ctypes.data % ALIGNMENT:
        view = view.copy()
    view.flags.writeable = False
    return view
