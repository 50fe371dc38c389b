"""How a row lies in a segment: a record of fixed size, checked by itself, found by its number alone.

    bytes 0..r        the packed row, padded to whole words
    bytes r..r+8      id, int64
    bytes r+8..r+16   version, int64; a record that forgets an id has the sign bit set
    bytes r+16..r+24  XXH64 of bytes 0..r+16, seed = XXH64(place, 0; seed = key of the table's name)

All little endian. The place is part of the checksum: a record that was written, or is read, at the wrong place is damage.
Records stand in blocks of 4 KiB and do not cross their ends where that wastes little, so that one read of the disk brings
a row; else they follow each other.

Legend: n records; b bytes of a packed row; w words of 8 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.rowlog.log import record_kernels as kernels
from pipeline.rows.arrays import read_only
from pipeline.rows.digest import table_key
from pipeline.rows.spec import TableSpec

Int64s = npt.NDArray[np.int64]
RowBytes = npt.NDArray[np.uint8]

WORD: Final = 8
BLOCK: Final = 4096
HEADER_BYTES: Final = BLOCK
MOST_WASTE: Final = 8
"""A block may waste an eighth."""
ROW_BITS: Final = 32
DEAD: Final = np.int64(-(1 << 63))
"""Sign bit of a version: the id is forgotten from here on."""


class Rows(NamedTuple):
    """Where rows are copied to: the caller's arrays."""

    rows_nb: RowBytes
    versions_n: Int64s


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one table. Pure: sizes, places, and bytes in memory."""

    key: Any
    row_bytes: int
    """Of a packed row, as callers have it."""
    stride: int
    """Bytes of a record."""
    per_block: int
    block: int
    """Bytes from one block to the next."""

    @staticmethod
    def of(spec: TableSpec) -> Records:
        row_bytes = spec.layout.row_bytes
        stride = -(-row_bytes // WORD) * WORD + 3 * WORD
        per_block = BLOCK // stride
        if per_block and BLOCK - per_block * stride <= BLOCK // MOST_WASTE:
            return Records(table_key(spec.name), row_bytes, stride, per_block, BLOCK)
        return Records(table_key(spec.name), row_bytes, stride, 1, stride)

    def capacity(self, nbytes: int) -> int:
        """Records that fit into so many bytes; at least one block of them."""
        return max(1, nbytes // self.block) * self.per_block

    def offsets(self, rows_n: Int64s) -> Int64s:
        """Where records lie in their segment's file, by number."""
        return HEADER_BYTES + rows_n // self.per_block * self.block + rows_n % self.per_block * self.stride

    def data_bytes(self, num_rows: int) -> int:
        """Bytes of so many records from the first on, whole blocks."""
        return -(-num_rows // self.per_block) * self.block

    def pack(self, first_place: int, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s, out: RowBytes) -> None:
        """Write records with consecutive places into ``out`` [bytes], which begins with the block of the first.

        ``rows_nb`` may be wider than a row.
        """
        start = (first_place & ((1 << ROW_BITS) - 1)) % self.per_block
        kernels.pack(
            self.key,
            first_place,
            ids_n,
            rows_nb,
            self.row_bytes,
            versions_n,
            out,
            start,
            self.per_block,
            self.block,
            self.stride,
        )

    def unpack(
        self, data: RowBytes, offsets_n: Int64s, places_n: Int64s, ids_n: Int64s, into_n: Int64s, rows: Rows
    ) -> int:
        """Check the records at ``offsets_n`` of ``data``, which should be those of ``ids_n`` at ``places_n``, and copy them to
        the places ``into_n`` of ``rows``.

        Returns the number of the first that is not what was asked for, -1 when all are. What follows it is not copied.
        """
        rows_nb, versions_n = rows
        # Read-only, as bytes from a file are: one set of types for the compiler.
        data = read_only(data, np.uint8)
        return int(
            kernels.unpack(
                self.key, data, offsets_n, places_n, ids_n, into_n, self.stride, self.row_bytes, rows_nb, versions_n
            )
        )

    def unpack_memory(
        self, extents: MemoryExtents, found_n: Int64s, places_n: Int64s, ids_n: Int64s, rows: Rows
    ) -> int:
        """``unpack`` of those that ``extents.find`` has found in memory, to the same numbers of ``rows``."""
        return int(
            kernels.unpack_memory(
                self.key,
                extents.firsts_x,
                extents.bases_x,
                found_n,
                places_n,
                ids_n,
                self.per_block,
                self.block,
                self.stride,
                self.row_bytes,
                *rows,
            )
        )


@dataclass(frozen=True, slots=True)
class MemoryExtents:
    """Runs of records in memory, by their first place, rising; each begins with a block. Whoever holds them keeps the memory."""

    firsts_x: Int64s
    counts_x: Int64s
    bases_x: Int64s
    """Addresses."""

    def find(self, places_n: Int64s) -> Int64s:
        """The number of the run that holds each place, -1 where none does."""
        found_n = np.empty(len(places_n), dtype=np.int64)
        kernels.find_in_memory(self.firsts_x, self.counts_x, places_n, found_n)
        return found_n
