"""Which shard of a place index holds which keys: the shards' records in the order of their keys, and how to find one.

A record is LOW .. END of ``shard_kernels``. Cells cut all keys into equal parts, a few for each shard; a cell knows the
shard of its first key. So a shard is found by one look, or a few.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.rowlog import places_kernels as kernels
from pipeline.rowlog import shard_kernels as shards
from pipeline.rowlog.regions import Regions

LOWEST: Final = -(2**63)
HIGHEST: Final = 2**63 - 1
STAYING_SHARES: Final = 0.5, 0.66
"""Of a shard's ids, those that stay when it is split: from .. to, by chance. Shards of one size would all grow at one time."""
RESERVED_SHARES: Final = 0.69, 0.75
"""How much of its memory a shard fills when room was asked for ahead: from .. to, for the same reason."""
GOLDEN: Final = 0.618
CELLS_PER_SHARD: Final = 4
FEWEST_BITS: Final = 4


class Directory:
    """The shards of one index, and their memory. At first one holds all keys."""

    def __init__(self, shard_entries: int) -> None:
        self.shard_entries = shard_entries
        self._regions = Regions(shard_entries * shards.ENTRY_BYTES)
        self._records = np.zeros((4, shards.FIELDS), dtype=np.int64)
        self.scratch = np.empty(shard_entries, dtype=np.int32)
        self._num_shards = 1
        self._records[0, :3] = LOWEST, HIGHEST, self._regions.take()
        shards.open_shard(self._records.ctypes.data)
        self._number_cells(FEWEST_BITS)

    @property
    def shards_kf(self) -> npt.NDArray[np.int64]:
        """The records, int64 [k, FIELDS], in the order of their keys. Valid until the next split."""
        return self._records[: self._num_shards]

    @property
    def nbytes(self) -> int:
        """Memory held: pages of entries that were written, records and cells."""
        written_k = self.shards_kf[:, shards.END] * shards.ENTRY_BYTES
        held = self._regions.held_bytes(self.shards_kf[:, shards.ADDRESS], written_k)
        return held + self._records.nbytes + self._cells_c.nbytes + self.scratch.nbytes

    def number_of(self, key: int) -> int:
        """The number of the shard that holds or would hold ``key``."""
        return int(kernels.number_of(*self.for_kernels, key))

    def divide(self, key: int) -> None:
        """Split the shard of ``key`` between two of its ids."""
        k = self.number_of(key)
        low, high, count = (int(self._records[k, field]) for field in (shards.LOW, shards.HIGH, shards.COUNT))
        least, most = STAYING_SHARES
        staying = max(1, int(count * (least + (most - least) * shards.chance(self._address(k)))))
        middle = (low + high) // 2 + 1
        self._split(k, int(shards.key_at(self._address(k), staying)) if staying < count else middle)

    def reserve(self, count: int) -> None:
        """Make room for ``count`` ids in all."""
        bounds = _even_bounds(count, self.shard_entries)
        self._regions.map_filled(len(bounds))
        for bound in bounds:
            k = self.number_of(bound)
            if self._records[k, shards.LOW] < bound:
                self._split(k, bound)
        widths_k = np.diff(self.shards_kf[:, shards.LOW].astype(np.float64), append=2.0**63)
        expected_k = np.minimum(widths_k * (count / 2.0**64), shards.SPLIT_LOAD * self.shard_entries)
        for k in np.flatnonzero(expected_k > self.shards_kf[:, shards.LIMIT]).tolist():
            shards.widen(self._address(k), int(expected_k[k]), self.shard_entries, self.scratch)

    def _address(self, k: int) -> int:
        return self._records.ctypes.data + k * shards.SHARD_BYTES

    def _split(self, k: int, bound: int) -> None:
        """Give the keys from ``bound`` on, which is in shard ``k`` and not its LOW, to a shard of their own."""
        address = self._regions.take()
        if self._num_shards == self._records.shape[0]:
            self._records = np.concatenate([self._records, np.zeros_like(self._records)])
        self._records[k + 2 : self._num_shards + 1] = self._records[k + 1 : self._num_shards]
        self._num_shards += 1
        self._records[k + 1, :3] = bound, self._records[k, shards.HIGH], address
        self._records[k, shards.HIGH] = bound - 1
        written = int(self._records[k, shards.END])
        shards.split_off(self._address(k), self._address(k + 1), self.shard_entries)
        kept = int(self._records[k, shards.END])
        if kept < written:
            self._regions.release(int(self._records[k, shards.ADDRESS]), kept * shards.ENTRY_BYTES)
        if self._num_shards * CELLS_PER_SHARD > 1 << self._bits:
            self._number_cells(self._bits + 1)
        else:
            self._cells_c[-((LOWEST - bound) // self._cell_keys) :] += 1
            self._tell_kernels()

    @property
    def _cell_keys(self) -> int:
        return 1 << (64 - self._bits)

    def _number_cells(self, bits: int) -> None:
        """Find the shard of each cell's first key; one more cell, behind the last, has the last shard."""
        self._bits = bits
        firsts_c = np.arange(-(1 << (bits - 1)), 1 << (bits - 1), dtype=np.int64) * self._cell_keys
        found_c = np.searchsorted(self.shards_kf[:, shards.LOW], firsts_c, side="right") - 1
        self._cells_c = np.append(found_c, self._num_shards - 1)
        self._tell_kernels()

    def _tell_kernels(self) -> None:
        self.for_kernels = self._records.ctypes.data, self._cells_c.ctypes.data, self._bits


def _even_bounds(count: int, shard_entries: int) -> list[int]:
    """The keys at which shards for ``count`` ids begin, from the second shard on."""
    least, most = (share * shard_entries for share in RESERVED_SHARES)
    bounds, done, number = [], 0.0, 0
    while count - done > most:
        done += least + (most - least) * (number * GOLDEN % 1)
        bounds.append(LOWEST + int(done / count * 2.0**64))
        number += 1
    return bounds
