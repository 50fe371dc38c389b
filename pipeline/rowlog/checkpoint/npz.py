"""Writes an npz piece by piece, so that no array has to fit in memory. The same arrays give the same bytes.

An npz is a zip of ``NAME.npy`` members, here uncompressed, all dated 1980-01-01. ``numpy.load`` reads it.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from pipeline.files import Files, WritableFile, create_anew, discard, finish, temporary_name
from pipeline.rowlog.errors import ExportFailed


@dataclass(frozen=True, slots=True)
class NpzArray:
    """One array: ``pieces`` follow each other along the first axis and make up ``shape``."""

    name: str
    dtype: npt.DTypeLike
    shape: tuple[int, ...]
    pieces: Iterable[npt.NDArray[Any]]


def write_npz(files: Files, out: str, arrays: Sequence[NpzArray]) -> None:
    """Write ``out`` atomically; the name is taken as it is. Raises ExportFailed where its directory is missing."""
    check_place(files, out)
    file = create_anew(files, temporary_name(out))
    try:
        with zipfile.ZipFile(cast(IO[bytes], _Stream(file)), "w", zipfile.ZIP_STORED) as archive:
            for array in arrays:
                with archive.open(zipfile.ZipInfo(f"{array.name}.npy"), "w", force_zip64=True) as member:
                    _write_member(member, array)
        finish(files, file, out)
    except BaseException:
        discard(files, file)
        raise


def check_place(files: Files, out: str) -> None:
    """Raises ExportFailed where the directory of ``out`` is missing."""
    directory = os.path.dirname(out) or "."
    if not files.exists(directory):
        raise ExportFailed(f"cannot write {out}: there is no directory {directory}; make it, or choose another place")


def _write_member(member: IO[bytes], array: NpzArray) -> None:
    dtype, written = np.dtype(array.dtype), 0
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(member, header)
    for piece in array.pieces:
        assert (piece.dtype, piece.shape[1:]) == (dtype, array.shape[1:]), (array.name, piece.dtype, piece.shape)
        member.write(np.ascontiguousarray(piece).view(np.uint8).reshape(-1).data if piece.size else b"")
        written += piece.shape[0]
    assert written == array.shape[0], (array.name, written, array.shape)


class _Stream(io.RawIOBase):
    """A WritableFile as zipfile wants it: it cannot seek, so members carry their sizes behind them."""

    def __init__(self, file: WritableFile) -> None:
        super().__init__()
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._file.write(view)
        return view.nbytes
