"""What an export writes: arrays with a row for each row of a table, which come chunk by chunk, and the file they go to."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.files import WritableFile

Values = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class RowArray:
    """``part`` takes of a chunk what this array has of its rows: [rows, *tail]."""

    name: str
    dtype: np.dtype[Any]
    tail: tuple[int, ...]
    part: Callable[[Any], Values]

    def of(self, chunk: Any, start: int = 0, stop: int | None = None) -> Values:
        """Of the chunk's rows start .. stop, in C order. Another dtype or shape than was promised is our own bug."""
        values = self.part(chunk)[start:stop]
        assert (values.dtype, values.shape[1:]) == (self.dtype, self.tail), (self.name, values.dtype, values.shape)
        return np.ascontiguousarray(values)


@dataclass(frozen=True, slots=True)
class RowArrays:
    """``chunks`` gives the ``count`` rows from the first on, as often as it is called."""

    count: int
    chunks: Callable[[], Iterator[Any]]
    arrays: Sequence[RowArray]

    def whole(self) -> Iterator[Any]:
        """The chunks. Another number of rows than was promised is our own bug."""
        seen = 0
        for chunk in self.chunks():
            seen += len(self.arrays[0].part(chunk))
            yield chunk
        assert seen == self.count, (seen, self.count)

    def data(self, array: RowArray) -> Iterator[memoryview]:
        """The bytes of one array."""
        for chunk in self.whole():
            values = array.of(chunk)
            if values.size:
                yield values.view(np.uint8).reshape(-1).data


class FileStream(io.RawIOBase):
    """A WritableFile as libraries want it. It cannot seek, and closing it leaves the file open."""

    def __init__(self, file: WritableFile) -> None:
        super().__init__()
        self._file, self._written = file, 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._file.write(view)
        self._written += view.nbytes
        return view.nbytes
