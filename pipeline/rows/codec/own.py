"""A codec of one's own: what is tried when it is registered, and what makes a ``Codec`` of it."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np

from pipeline.rows.codec.base import Codec, Float32s, RowBytes, RowCodec, checked_rows, checked_weights
from pipeline.rows.digest import TableRuns, tables_digest
from pipeline.rows.errors import BadCodec
from pipeline.rows.spec import NAME_PATTERN

DIMS: Final = (1, 2, 7, 64)
NUM_ROWS: Final = 9
MAX_HEAD_BYTES: Final = 1024
MAX_BYTES_PER_WEIGHT: Final = 64
"""More than these is taken for a mistake."""


class OwnCodec:
    """A ``RowCodec`` with the rest of ``Codec``. What it returns is looked at each time: BadCodec says what is wrong with it."""

    kind = None

    def __init__(self, codec: RowCodec) -> None:
        self.codec, self.name = codec, codec.name

    def row_bytes(self, dim: int) -> int:
        return int(self.codec.row_bytes(dim))

    def encode(self, weights_nd: Float32s) -> RowBytes:
        weights_nd = np.ascontiguousarray(checked_weights(weights_nd)).view()
        weights_nd.flags.writeable = False
        count, dim = weights_nd.shape
        encoded_nb: RowBytes = self._made("encode", np.uint8, (count, self.row_bytes(dim)), weights_nd)
        return encoded_nb

    def encode_hashed(self, weights_nd: Float32s, rows: TableRuns) -> tuple[RowBytes, int]:
        encoded_nb = self.encode(weights_nd)
        return encoded_nb, self.digest(encoded_nb, weights_nd.shape[1], rows)

    def decode(self, encoded_nb: RowBytes, dim: int) -> Float32s:
        encoded_nb = checked_rows(encoded_nb, self, dim)
        decoded_nd: Float32s = self._made("decode", np.float32, (encoded_nb.shape[0], dim), encoded_nb, dim)
        return decoded_nd

    def digest(self, encoded_nb: RowBytes, dim: int, rows: TableRuns) -> int:
        return tables_digest(rows, self.decode(encoded_nb, dim).view(np.uint8))

    def _made(self, name: str, dtype: Any, shape: tuple[int, int], *arguments: Any) -> Any:
        """What the method ``name`` returns, contiguous. Raises BadCodec for anything but an array of that kind, and for an error."""
        try:
            made = getattr(self.codec, name)(*arguments)
        except Exception as error:  # whatever the codec does
            raise BadCodec(self.name, f"{name} raised {type(error).__name__}: {error}") from error
        if not isinstance(made, np.ndarray) or made.dtype != dtype or made.shape != shape:
            found = f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__
            raise BadCodec(self.name, f"{name} returned {found}, expected {np.dtype(dtype)} {shape}")
        return np.ascontiguousarray(made)


def checked_codec(codec: Any) -> Codec:
    """A codec of one's own, tried on a few rows. Raises BadCodec that says what it did."""
    name = getattr(codec, "name", None)
    lacks = [part for part in ("row_bytes", "encode", "decode") if not callable(getattr(codec, part, None))]
    if isinstance(codec, type):
        raise BadCodec(codec.__name__, "it is a class; name an object of it")
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
        raise BadCodec(repr(codec), f"its name is {name!r}; a name matches {NAME_PATTERN}")
    if lacks:
        raise BadCodec(name, f"it has no {', '.join(lacks)}; a codec has name, row_bytes, encode and decode")
    own = OwnCodec(codec)
    rng = np.random.default_rng(0)
    for dim in DIMS:
        _try(own, dim, rng)
    return own


def _twice_alike(codec: OwnCodec, encoded_nb: RowBytes, dim: int) -> bool:
    return codec.decode(encoded_nb, dim).tobytes() == codec.decode(encoded_nb, dim).tobytes()


def _try(codec: OwnCodec, dim: int, rng: np.random.Generator) -> None:
    nbytes = codec.codec.row_bytes(dim)
    most = MAX_HEAD_BYTES + MAX_BYTES_PER_WEIGHT * dim
    if not isinstance(nbytes, int) or not 1 <= nbytes <= most:
        raise BadCodec(codec.name, f"row_bytes({dim}) is {nbytes!r}; an encoded row has 1 to {most} bytes")
    weights_nd = rng.standard_normal((NUM_ROWS, dim)).astype(np.float32)
    weights_nd[1], weights_nd[2], weights_nd[3, 0], weights_nd[4, 0] = 0, 1e30, np.nan, np.inf
    encoded_nb = codec.encode(weights_nd)
    decoded_nd = codec.decode(encoded_nb, dim)
    alone_nb = np.concatenate([codec.encode(weights_nd[n : n + 1]) for n in range(NUM_ROWS)])
    noise_nb = rng.integers(0, 256, encoded_nb.shape, dtype=np.uint8)
    promises = {
        "encode gave the same rows other bytes the second time": codec.encode(weights_nd).tobytes() == encoded_nb.tobytes(),
        "encode gave a row other bytes when it stood alone": alone_nb.tobytes() == encoded_nb.tobytes(),
        "decode gave the same bytes other rows the second time": codec.decode(encoded_nb, dim).tobytes() == decoded_nd.tobytes(),
        "decode gave the same noise other rows the second time": _twice_alike(codec, noise_nb, dim),
        "it did not encode no rows": codec.decode(codec.encode(weights_nd[:0]), dim).shape == (0, dim),
    }  # fmt: skip
    for broken, kept in promises.items():
        if not kept:
            raise BadCodec(codec.name, f"{broken} (dim {dim})")
