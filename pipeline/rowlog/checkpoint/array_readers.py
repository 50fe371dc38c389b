"""Reads files of arrays that have a row each for the same rows, piece by piece: what ``array_files`` writes, and the same from elsewhere.

The name's end says the form: ``.safetensors``, ``.parquet``, ``.npz``. Nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.rowlog.checkpoint.safetensors_file import DTYPES
from pipeline.rowlog.errors import ImportFailed

Pieces = Iterator[dict[str, npt.NDArray[Any]]]
MOST_HEADER_BYTES: Final = 100 << 20


@dataclass(frozen=True, slots=True)
class Described:
    """One array of a file: its numbers and its whole shape, rows first."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


class ArrayReader(Protocol):
    """``arrays`` is known at once. ``pieces`` gives the next rows of all arrays named, from the first on each time it is called."""

    @property
    def path(self) -> str: ...

    @property
    def arrays(self) -> Mapping[str, Described]: ...

    def pieces(self, names: list[str], rows: int) -> Pieces: ...


def open_arrays(path: str) -> ArrayReader:
    """Raises ImportFailed for what is none of these files, or not whole."""
    form = READERS.get(os.path.splitext(path)[1])
    if form is None:
        raise ImportFailed(path, f"its name ends in none of {', '.join(READERS)}")
    try:
        return form(path)
    except (OSError, ValueError, KeyError, TypeError, struct.error, zipfile.BadZipFile) as error:
        raise ImportFailed(path, f"it cannot be read as {os.path.splitext(path)[1]}: {error}") from error


class NpzReader:
    """A zip of ``NAME.npy`` members, each read as a stream, compressed or not."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.arrays: dict[str, Described] = {}
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as stream:
                    self.arrays[member.removesuffix(".npy")] = _npy_header(stream, member)

    def pieces(self, names: list[str], rows: int) -> Pieces:
        count = self.arrays[names[0]].shape[0]
        with zipfile.ZipFile(self.path) as archive, ExitStack() as stack:
            streams = {name: stack.enter_context(archive.open(f"{name}.npy")) for name in names}
            for name, stream in streams.items():
                _npy_header(stream, name)
            for start in range(0, count, rows):
                some = min(rows, count - start)
                yield {name: self._next(stream, name, some) for name, stream in streams.items()}

    def _next(self, stream: Any, name: str, rows: int) -> npt.NDArray[Any]:
        described = self.arrays[name]
        shape = (rows, *described.shape[1:])
        nbytes = int(np.prod(shape)) * described.dtype.itemsize
        data = stream.read(nbytes)
        if len(data) != nbytes:
            raise ImportFailed(self.path, f"array {name!r} ends before its {described.shape[0]} rows")
        return np.frombuffer(data, dtype=described.dtype).reshape(shape)


def _npy_header(stream: Any, name: str) -> Described:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError(f"array {name!r} holds Python objects")
    if by_columns and len(shape) > 1:
        raise ValueError(f"array {name!r} is in column order; save numpy.ascontiguousarray of it")
    return Described(dtype, tuple(shape))


class SafetensorsReader:
    """Each piece is read from where it lies."""

    def __init__(self, path: str) -> None:
        self.path, size = path, os.path.getsize(path)
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size - 8, MOST_HEADER_BYTES):
                raise ValueError(f"its header would have {length} bytes")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        names = {code: name for name, code in DTYPES.items()}
        self.arrays: dict[str, Described] = {}
        self._starts: dict[str, int] = {}
        for name, entry in header.items():
            if entry["dtype"] not in names:
                raise ValueError(f"array {name!r} holds {entry['dtype']}; known are {', '.join(names)}")
            described = Described(np.dtype(names[entry["dtype"]]), tuple(entry["shape"]))
            start, end = entry["data_offsets"]
            nbytes = int(np.prod(described.shape, dtype=np.int64)) * described.dtype.itemsize
            if start < 0 or end - start != nbytes or 8 + length + end > size:
                raise ValueError(f"array {name!r} does not lie within the file")
            self.arrays[name], self._starts[name] = described, 8 + length + start

    def pieces(self, names: list[str], rows: int) -> Pieces:
        count = self.arrays[names[0]].shape[0]
        for start in range(0, count, rows):
            yield {name: self._piece(name, start, min(rows, count - start)) for name in names}

    def _piece(self, name: str, start: int, rows: int) -> npt.NDArray[Any]:
        dtype, tail = self.arrays[name].dtype, self.arrays[name].shape[1:]
        numbers = int(np.prod(tail, dtype=np.int64))
        offset = self._starts[name] + start * numbers * dtype.itemsize
        return np.fromfile(self.path, dtype=dtype, count=rows * numbers, offset=offset).reshape(rows, *tail)


class ParquetReader:
    """A column for each array; lists of a fixed size for those of several numbers a row."""

    def __init__(self, path: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                schema, count = file.schema_arrow, file.metadata.num_rows
                self.arrays = {field.name: _described(field.type, count) for field in schema}
        except pa.ArrowException as error:
            raise ValueError(str(error)) from error

    def pieces(self, names: list[str], rows: int) -> Pieces:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(rows, columns=names):
                yield {name: self._values(batch.column(name), name) for name in names}

    def _values(self, column: Any, name: str) -> npt.NDArray[Any]:
        if column.null_count:
            raise ImportFailed(self.path, f"column {name!r} has missing values; give one for each row")
        tail = self.arrays[name].shape[1:]
        values = column.flatten() if tail else column
        found: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(len(column), *tail)
        return found


def _described(kind: Any, count: int) -> Described:
    import pyarrow as pa

    if pa.types.is_fixed_size_list(kind):
        return Described(np.dtype(kind.value_type.to_pandas_dtype()), (count, kind.list_size))
    return Described(np.dtype(kind.to_pandas_dtype()), (count,))


READERS: Final[Mapping[str, type[NpzReader] | type[SafetensorsReader] | type[ParquetReader]]] = {
    ".npz": NpzReader,
    ".parquet": ParquetReader,
    ".safetensors": SafetensorsReader,
}
