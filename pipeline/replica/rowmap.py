"""Rows by id, in memory: an index and blocks of float32 weights, and of what rides along beside them, that never move.

Legend: n ids of one call, distinct; d weights of a row; x bytes of a row beside its weights (``carried``); p positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.replica import kernels
from pipeline.rows.arrays import read_only, read_only_ids
from pipeline.rows.codec import Codec, aligned
from pipeline.rows.index import IdIndex

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
RowBytes = npt.NDArray[np.uint8]
NO_EXTRA: RowBytes = np.empty((0, 0), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Block:
    weights: Float32s
    versions: Int64s
    extra: RowBytes


class RowMap:
    """Not thread-safe: any number of readers, or one writer alone. Grows by blocks; a row is not copied again."""

    read_rows = 32768
    """So many rows may be read at once while a writer waits."""

    def __init__(self, dim: int, extra_bytes: int = 0) -> None:
        self.dim, self.extra_bytes = dim, extra_bytes
        self.index = IdIndex()
        self._blocks: list[Block] = []
        self._weights_k = self._versions_k = self._extra_k = np.empty(0, dtype=np.int64)

    @property
    def count(self) -> int:
        return self.index.count

    @property
    def nbytes(self) -> int:
        """What the rows and the index take."""
        return self.index.count * (4 * self.dim + 8 + self.extra_bytes) + self.index.nbytes

    def ids(self) -> Int64s:
        """All ids held, a copy."""
        return self.index.ids()

    def read_found(self, ids_n: Int64s, out_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes | None = None) -> None:
        """Overwrite the places of ids that are held, in place; duplicates allowed."""
        if not self.index.count:
            return
        entries_c, ids_p = self.index.arrays
        ids_n = read_only_ids(ids_n)
        kernels.read_found(entries_c, ids_p, self._weights_k, self._versions_k, ids_n, out_nd, versions_n)
        if extra_nx is not None and self.extra_bytes:
            kernels.read_bytes(entries_c, ids_p, self._extra_k, ids_n, extra_nx)

    def put(self, ids_n: Int64s, weights_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes = NO_EXTRA) -> Int64s:
        """Insert or replace rows; returns their positions."""
        positions_n = self.index.insert(ids_n)
        self._reserve(int(positions_n.max(initial=-1)) + 1)
        weights_nd, versions_n = read_only(weights_nd, np.float32), read_only(versions_n, np.int64)
        kernels.write_rows(self._weights_k, self._versions_k, positions_n, weights_nd, versions_n)
        self._put_extra(positions_n, extra_nx)
        return positions_n

    def put_encoded(
        self, ids_n: Int64s, encoded_nb: RowBytes, codec: Codec, versions_n: Int64s, extra_nx: RowBytes = NO_EXTRA
    ) -> Int64s:
        """``put`` of what ``encoded_nb`` decodes to; what kernels can decode is decoded where it will lie."""
        if codec.kind is None or not len(ids_n):
            return self.put(ids_n, codec.decode(encoded_nb, self.dim), versions_n, extra_nx)
        positions_n = self.index.insert(ids_n)
        self._reserve(int(positions_n.max()) + 1)
        encoded_nb, versions_n = aligned(encoded_nb), read_only(versions_n, np.int64)
        kernels.write_encoded(
            codec.kind, self.dim, self._weights_k, self._versions_k, positions_n, encoded_nb, versions_n
        )
        self._put_extra(positions_n, extra_nx)
        return positions_n

    def remove(self, ids_n: Int64s) -> None:
        """Forget rows; absent ids are passed over."""
        self.index.remove(ids_n)

    def naming(self) -> Naming:
        """Rows of a snapshot cut are about to be put: takes down which."""
        return Naming(self)

    def _put_extra(self, positions_n: Int64s, extra_nx: RowBytes) -> None:
        if self.extra_bytes and len(positions_n):
            kernels.write_bytes(self._extra_k, positions_n, read_only(extra_nx, np.uint8))

    def _reserve(self, positions: int) -> None:
        missing = -(-positions // kernels.BLOCK_ROWS) - len(self._blocks)
        if missing <= 0:
            return
        for _ in range(missing):
            self._blocks.append(
                Block(
                    np.empty((kernels.BLOCK_ROWS, self.dim), dtype=np.float32),
                    np.empty(kernels.BLOCK_ROWS, dtype=np.int64),
                    np.empty((kernels.BLOCK_ROWS, self.extra_bytes), dtype=np.uint8),
                )
            )
        self._weights_k = _addresses([block.weights for block in self._blocks])
        self._versions_k = _addresses([block.versions for block in self._blocks])
        self._extra_k = _addresses([block.extra for block in self._blocks])


class Naming:
    """Which rows of a map a snapshot cut names: a bit for each position."""

    def __init__(self, rows: RowMap) -> None:
        self._rows = rows
        self._named_p = np.zeros(0, dtype=np.bool_)

    def add(self, _ids_n: Int64s, positions_n: Int64s) -> None:
        """Rows that were put; the bits grow by doubling."""
        size, had = int(positions_n.max(initial=-1)) + 1, len(self._named_p)
        if size > had:
            self._named_p = np.concatenate([self._named_p, np.zeros(max(size - had, had), dtype=np.bool_)])
        self._named_p[positions_n] = True

    def others(self) -> Int64s:
        """Ids held that were not named."""
        ids_n, positions_n = self._rows.index.items()
        known = positions_n < len(self._named_p)
        kept = np.zeros(len(ids_n), dtype=np.bool_)
        kept[known] = self._named_p[positions_n[known]]
        return ids_n[~kept]


def _addresses(arrays: list[npt.NDArray[Any]]) -> Int64s:
    return np.array([array.ctypes.data for array in arrays], dtype=np.int64)
