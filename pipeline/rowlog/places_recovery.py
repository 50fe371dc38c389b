"""Filling a place index from records in any order: of two of one id the newer one counts. On all processors.

The keys are cut into parts at the bounds of shards; each thread goes through all ids and enters those of its part. A shard that
has to be split waits until all threads have stopped: that moves the directory. Where room was reserved it is rare.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.rowlog import places_kernels as kernels
from pipeline.rowlog import shard_kernels as shards
from pipeline.rowlog.directory import HIGHEST, LOWEST, Directory
from pipeline.rowlog.places import PlaceIndex
from pipeline.rows.arrays import read_only_ids

Int64s = npt.NDArray[np.int64]
FEW: Final = 1 << 15
"""So many ids, or more into few shards, are entered by one thread."""
SHARDS_A_PART: Final = 4


class Recovery:
    """Of one index, which nobody else uses meanwhile. A context manager."""

    def __init__(self, index: PlaceIndex, threads: int, versions_r: Int64s, bases_s: Int64s) -> None:
        """The version of the record at place p is ``versions_r[bases_s[p >> 32] + (p & 0xFFFFFFFF)]``; with the sign bit it forgets its
        id, and wins a tie.
        """
        self._directory: Directory = index.directory
        self._versions_r, self._bases_s, self._threads = versions_r, bases_s, threads
        self._pool = ThreadPoolExecutor(threads, "rowlog-recover")
        self._scratch = [np.empty_like(self._directory.scratch) for _ in range(threads)]

    def enter(self, ids: Int64s, places: Int64s) -> Int64s:
        """Enter ids at their places. Of each, the place that is older than another one of its id, or -1: int64 [n]."""
        ids_n, places_n = read_only_ids(ids), read_only_ids(places)
        older_n = np.empty(ids_n.shape[0], dtype=np.int64)
        num_shards = self._directory.shards_kf.shape[0]
        parts = 1 if ids_n.shape[0] < FEW or num_shards < SHARDS_A_PART * self._threads else self._threads
        todo = [(part, 0) for part in range(parts)]
        bounds = self._bounds(parts)
        while todo:
            work = [(bounds[part], part, ids_n, places_n, start, older_n) for part, start in todo]
            if len(work) == 1:  # a hop to another thread takes longer than a small segment
                ends = [self._run(*work[0])]
            else:
                ends = [call.result() for call in [self._pool.submit(self._run, *one) for one in work]]
            stopped = [(part, end) for (part, _), end in zip(todo, ends, strict=True)]
            todo = [(part, done) for part, done in stopped if done < ids_n.shape[0]]
            for _, done in todo:
                self._directory.divide(int(shards.key_of(ids_n[done])))
        return older_n

    def _run(
        self, bounds: tuple[int, int], part: int, ids_n: Int64s, places_n: Int64s, start: int, older_n: Int64s
    ) -> int:
        held, entries = self._directory.for_kernels, self._directory.shard_entries
        more = self._versions_r, self._bases_s, older_n, entries, self._scratch[part]
        return int(kernels.recover_places(*held, ids_n, places_n, start, *bounds, *more))

    def _bounds(self, parts: int) -> list[tuple[int, int]]:
        """First and last key of each part. Splits cut shards, so they leave these bounds bounds of shards."""
        lows = self._directory.shards_kf[:, shards.LOW]
        firsts = [LOWEST, *(int(lows[len(lows) * part // parts]) for part in range(1, parts))]
        return list(zip(firsts, [*(first - 1 for first in firsts[1:]), HIGHEST], strict=True))

    def __enter__(self) -> Recovery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
