"""Rows by id, in memory: an index and blocks of float32 weights that never move.

Legend: n ids of one call, distinct; d weights of a row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.replica import kernels
from pipeline.rows.arrays import read_only, read_only_ids
from pipeline.rows.codec import Codec, aligned
from pipeline.rows.index import IdIndex

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
RowBytes = npt.NDArray[np.uint8]


class RowMap:
    """Not thread-safe: any number of readers, or one writer alone. Grows by blocks; a row is not copied again."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.index = IdIndex()
        self._blocks: list[tuple[Float32s, Int64s]] = []
        self._weights_k = np.empty(0, dtype=np.int64)
        self._versions_k = np.empty(0, dtype=np.int64)

    @property
    def count(self) -> int:
        return self.index.count

    @property
    def nbytes(self) -> int:
        """What the rows and the index take."""
        return self.index.count * (4 * self.dim + 8) + self.index.nbytes

    def read_found(self, ids_n: Int64s, out_nd: Float32s, versions_n: Int64s) -> None:
        """Overwrite the places of ids that are held, in place; duplicates allowed."""
        if self.index.count:
            entries_c, ids_p = self.index.arrays
            kernels.read_found(
                entries_c, ids_p, self._weights_k, self._versions_k, read_only_ids(ids_n), out_nd, versions_n
            )

    def put(self, ids_n: Int64s, weights_nd: Float32s, versions_n: Int64s) -> Int64s:
        """Insert or replace rows; returns their positions."""
        positions_n = self.index.insert(ids_n)
        self._reserve(int(positions_n.max(initial=-1)) + 1)
        weights_nd, versions_n = read_only(weights_nd, np.float32), read_only(versions_n, np.int64)
        kernels.write_rows(self._weights_k, self._versions_k, positions_n, weights_nd, versions_n)
        return positions_n

    def put_encoded(self, ids_n: Int64s, encoded_nb: RowBytes, codec: Codec, versions_n: Int64s) -> Int64s:
        """``put`` of what ``encoded_nb`` decodes to; what kernels can decode is decoded where it will lie."""
        if codec.kind is None or not len(ids_n):
            return self.put(ids_n, codec.decode(encoded_nb, self.dim), versions_n)
        positions_n = self.index.insert(ids_n)
        self._reserve(int(positions_n.max()) + 1)
        encoded_nb, versions_n = aligned(encoded_nb), read_only(versions_n, np.int64)
        kernels.write_encoded(
            codec.kind, self.dim, self._weights_k, self._versions_k, positions_n, encoded_nb, versions_n
        )
        return positions_n

    def remove(self, ids_n: Int64s) -> None:
        """Forget rows; absent ids are passed over."""
        self.index.remove(ids_n)

    def _reserve(self, positions: int) -> None:
        missing = -(-positions // kernels.BLOCK_ROWS) - len(self._blocks)
        if missing <= 0:
            return
        for _ in range(missing):
            shape = (kernels.BLOCK_ROWS, self.dim)
            self._blocks.append((np.empty(shape, dtype=np.float32), np.empty(kernels.BLOCK_ROWS, dtype=np.int64)))
        self._weights_k = np.array([weights.ctypes.data for weights, _ in self._blocks], dtype=np.int64)
        self._versions_k = np.array([versions.ctypes.data for _, versions in self._blocks], dtype=np.int64)
