"""Parquet: a column for each array, a row for each of its rows; arrays of several numbers a row are lists of a fixed size."""

from __future__ import annotations

from typing import Any, Final

from pipeline.files import WritableFile
from pipeline.rowlog.checkpoint.row_arrays import FileStream, RowArray, RowArrays, Values

GROUP_ROWS: Final = 8192
"""Of a row group: as many as are copied, and kept encoded until they are written."""


def write_parquet(file: WritableFile, rows: RowArrays) -> None:
    """One chunk after the other. Numbers of trained rows do not repeat, so neither dictionaries nor statistics are kept of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def kind(array: RowArray) -> Any:
        numbers = pa.from_numpy_dtype(array.dtype)
        return pa.list_(numbers, *array.tail) if array.tail else numbers

    def column(values: Values, kind: Any) -> Any:
        return (
            pa.array(values) if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(values.reshape(-1), type=kind)
        )

    schema = pa.schema([pa.field(array.name, kind(array), nullable=False) for array in rows.arrays])
    options = {"compression": "zstd", "use_dictionary": False, "write_statistics": ["ids"]}
    with pq.ParquetWriter(pa.PythonFile(FileStream(file), mode="w"), schema, **options) as writer:
        for chunk in rows.whole():
            for start in range(0, len(rows.arrays[0].part(chunk)), GROUP_ROWS):
                parts = [
                    (array.of(chunk, start, start + GROUP_ROWS), schema.field(array.name).type) for array in rows.arrays
                ]
                writer.write_table(pa.table([column(*part) for part in parts], schema=schema))
