"""safetensors: a length (8 bytes, little endian), that many bytes of JSON, then the arrays one behind the other.

Its library writes whole arrays from memory; tables need not fit there. The format: github.com/huggingface/safetensors, README.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any, Final

from pipeline.files import WritableFile
from pipeline.rowlog.checkpoint.row_arrays import RowArrays

DTYPES: Final = {
    "float32": "F32",
    "float16": "F16",
    "float64": "F64",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def write_safetensors(file: WritableFile, rows: RowArrays) -> None:
    """Longer numbers first, as its library has it, so that each array lies on a boundary of its own numbers."""
    ordered = sorted(rows.arrays, key=lambda array: -array.dtype.itemsize)
    described: dict[str, Any] = {}
    end = 0
    for array in ordered:
        shape = (rows.count, *array.tail)
        start, end = end, end + array.dtype.itemsize * math.prod(shape)
        described[array.name] = {"dtype": DTYPES[array.dtype.name], "shape": shape, "data_offsets": (start, end)}
    header = json.dumps(described).encode()
    header += b" " * (-len(header) % 8)
    file.write(struct.pack("<Q", len(header)) + header)
    for array in ordered:
        for data in rows.data(array):
            file.write(data)
