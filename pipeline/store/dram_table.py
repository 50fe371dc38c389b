"""One table's rows in the DRAM tier: chunks of memory, found by an id index.

Chunks never move: growing copies no row. A row and its version lie side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Final

import numpy as np

from cuda.host.memory import allocate
from pipeline.rows.index import IdIndex
from pipeline.rows.spec import TableSpec
from pipeline.store.row_blocks import WORD_BYTES
from pipeline.store.tier import Int64s, RowBytes

CHUNK_SHIFT: Final = 16


class DramTable:
    """One table's rows. Callers hold ``lock``."""

    def __init__(self, spec: TableSpec, number: int, described_f: Int64s) -> None:
        """``described_f``: as in ``dram_kernels``, kept up to date under the lock."""
        self.spec, self.number, self.described_f = spec, number, described_f
        self.lock, self.index = threading.Lock(), IdIndex()
        self.row_bytes = spec.layout.row_bytes
        self.stride_bytes = self.row_bytes + WORD_BYTES
        self._chunks: list[RowBytes] = []
        self._bases_c = np.empty(0, dtype=np.int64)
        self._describe()

    def insert(self, ids_n: Int64s) -> Int64s:
        """Places for new rows."""
        places_n = self.index.insert(ids_n)
        while len(self._chunks) << CHUNK_SHIFT <= int(places_n.max()):
            self._chunks.append(allocate(1 << CHUNK_SHIFT, self.stride_bytes))
            self._bases_c = np.array([chunk.ctypes.data for chunk in self._chunks], dtype=np.int64)
        self._describe()
        return places_n

    def _describe(self) -> None:
        """Bring ``described_f`` up to date, for kernels that see many tables."""
        entries_c, ids_p = self.index.arrays
        where = entries_c.ctypes.data, entries_c.shape[0], ids_p.ctypes.data, ids_p.shape[0], self._bases_c.ctypes.data
        self.described_f[:] = *where, self.stride_bytes, self.row_bytes // WORD_BYTES

    def versions_later(self) -> Callable[[Int64s], Int64s]:
        """Versions by place, as they are when they are asked for; that needs no lock. Chunks never move, and a version is one word."""
        words = [chunk.view(np.int64)[:, -1] for chunk in self._chunks]

        def versions(places_n: Int64s) -> Int64s:
            versions_n = np.empty(places_n.shape[0], dtype=np.int64)
            starts = np.searchsorted(places_n, np.arange(len(words) + 1) << CHUNK_SHIFT).tolist()
            for number, (start, stop) in enumerate(pairwise(starts)):
                versions_n[start:stop] = words[number][places_n[start:stop] - (number << CHUNK_SHIFT)]
            return versions_n

        return versions
