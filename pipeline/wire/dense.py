"""Dense weights on the wire: arrays cut into pieces that fit a frame, put together again, and one digest for all.

The digest is xxh64 (seed 0) over the arrays in the order of their names' UTF-8 bytes; of each: name, a zero byte,
dtype name, a zero byte, the number of dimensions and each size as u64 little endian, then the values' bytes (C order,
little endian).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from pipeline.wire.errors import FrameError
from pipeline.wire.frames import DEFAULT_LIMITS, DenseFrame, DensePiece, FrameLimits

DTYPES: Final[Mapping[str, int]] = {
    "float64": 8, "float32": 4, "float16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1,
}  # fmt: skip
"""Names that may travel, and the bytes of one number."""

DenseArrays = Mapping[str, npt.NDArray[Any]]


def dense_digest(arrays: DenseArrays) -> int:
    """One uint64 for all arrays; see the module docstring."""
    digest = xxhash.xxh64()
    for name in sorted(arrays, key=str.encode):
        array = arrays[name]
        digest.update(name.encode() + b"\0" + array.dtype.name.encode() + b"\0")
        digest.update(struct.pack(f"<{1 + array.ndim}Q", array.ndim, *array.shape))
        digest.update(_bytes_of(array))
    return digest.intdigest()


def split_dense(arrays: DenseArrays, piece_bytes: int) -> Iterator[tuple[DensePiece, ...]]:
    """The pieces of all arrays, by name, in groups of at most ``piece_bytes`` and 256 pieces: one group makes one
    frame.

    The pieces share the arrays' memory. Raises ValueError for a dtype that cannot travel.
    """
    group: list[DensePiece] = []
    room = piece_bytes
    for name in sorted(arrays):
        for piece in _pieces_of(name, arrays[name], piece_bytes):
            if group and (len(piece.data) > room or len(group) == 256):
                yield tuple(group)
                group, room = [], piece_bytes
            group.append(piece)
            room -= len(piece.data)
    if group:
        yield tuple(group)


def _pieces_of(name: str, array: npt.NDArray[Any], piece_bytes: int) -> Iterator[DensePiece]:
    if array.dtype.name not in DTYPES:
        raise ValueError(f"dense array {name!r} is {array.dtype.name}; it must be one of {', '.join(DTYPES)}")
    data = _bytes_of(array)
    for start in range(0, max(len(data), 1), piece_bytes):
        yield DensePiece(name, array.dtype.name, array.shape, start, data[start : start + piece_bytes])


def _bytes_of(array: npt.NDArray[Any]) -> memoryview:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


class DenseAssembler:
    """Puts the pieces of one cut together. Frames must come in order; every byte must come once."""

    def __init__(self, limits: FrameLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        self._filled: dict[str, int] = {}
        self._nbytes = 0

    def add(self, frame: DenseFrame) -> None:
        """Raises FrameError where a piece does not go on where the one before it ended."""
        for piece in frame.pieces:
            if piece.name not in self._arrays:
                self._open(piece)
            array, filled = self._arrays[piece.name], self._filled[piece.name]
            if (array.dtype.name, array.shape, filled) != (piece.dtype, piece.shape, piece.start):
                raise FrameError(f"a piece at byte {piece.start}, expected {filled}", f"dense array {piece.name!r}")
            flat = array.reshape(-1).view(np.uint8)
            flat[filled : filled + len(piece.data)] = np.frombuffer(piece.data, dtype=np.uint8)
            self._filled[piece.name] = filled + len(piece.data)

    def _open(self, piece: DensePiece) -> None:
        array_bytes = DTYPES[piece.dtype] * int(np.prod(piece.shape, dtype=np.float64))
        if self._nbytes + array_bytes > self._limits.dense_bytes:
            raise FrameError(f"more than {self._limits.dense_bytes} bytes", "dense arrays of the cut")
        self._nbytes += array_bytes
        self._arrays[piece.name] = np.empty(piece.shape, dtype=np.dtype(piece.dtype))
        self._filled[piece.name] = 0

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays, whole. Raises FrameError when bytes are missing."""
        for name, array in self._arrays.items():
            if self._filled[name] != array.nbytes:
                raise FrameError(f"{self._filled[name]} of {array.nbytes} bytes came", f"dense array {name!r}")
        return self._arrays
