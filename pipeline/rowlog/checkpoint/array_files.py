"""Writes arrays to a file for other programs, chunk by chunk, so that none has to fit in memory. The same arrays give the same bytes.

The name chooses the form: ``.safetensors``, ``.parquet``, anything else an npz. An npz is a zip of ``NAME.npy`` members, here
uncompressed, all dated 1980-01-01; ``numpy.load`` reads it. For safetensors see ``safetensors_file``, for Parquet ``parquet_file``.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from typing import IO, Final, cast

import numpy as np

from pipeline.files import Files, WritableFile, create_anew, discard, finish, temporary_name
from pipeline.rowlog.checkpoint.parquet_file import write_parquet
from pipeline.rowlog.checkpoint.row_arrays import FileStream, RowArrays
from pipeline.rowlog.checkpoint.safetensors_file import write_safetensors
from pipeline.rowlog.errors import ExportFailed

FORMS: Final[Mapping[str, Callable[[WritableFile, RowArrays], None]]] = {
    ".safetensors": write_safetensors,
    ".parquet": write_parquet,
}
"""By how a name ends; all others are npz."""


def write_arrays(files: Files, out: str, rows: RowArrays) -> None:
    """Write ``out`` atomically; the name is taken as it is. Raises ExportFailed where its directory is missing."""
    check_place(files, out)
    write = FORMS.get(os.path.splitext(out)[1], _write_npz)
    file = create_anew(files, temporary_name(out))
    try:
        write(file, rows)
        finish(files, file, out)
    except BaseException:
        discard(files, file)
        raise


def check_place(files: Files, out: str) -> None:
    """Raises ExportFailed where the directory of ``out`` is missing."""
    directory = os.path.dirname(out) or "."
    if not files.exists(directory):
        raise ExportFailed(f"cannot write {out}: there is no directory {directory}; make it, or choose another place")


def _write_npz(file: WritableFile, rows: RowArrays) -> None:
    with zipfile.ZipFile(cast(IO[bytes], FileStream(file)), "w", zipfile.ZIP_STORED) as archive:
        for array in rows.arrays:
            with archive.open(zipfile.ZipInfo(f"{array.name}.npy"), "w", force_zip64=True) as member:
                header = {
                    "descr": np.lib.format.dtype_to_descr(array.dtype),
                    "fortran_order": False,
                    "shape": (rows.count, *array.tail),
                }
                np.lib.format.write_array_header_1_0(member, header)
                for data in rows.data(array):
                    member.write(data)
