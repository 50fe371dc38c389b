"""Deduplication of a batch: cuts the work up, keeps the hash tables between calls, and calls the kernels of ``dedup``."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cuda.host.batch import plain
from cuda.host.dedup import PIECE, SMALLEST, distinct
from cuda.host.dedup_job import BLOCK, Found, Job, Workbench
from cuda.host.dedup_whole import SMALLEST as SMALLEST_WHOLE
from cuda.host.memory import allocate
from cuda.host.recycle import Recycler
from cuda.plan import BatchIds, Int64s, UniqueIds

MAX_IDS = (1 << 31) - 1
KEPT_BENCHES = 4


@dataclass(frozen=True, slots=True)
class _Cuts:
    """See ``Job``."""

    key: bytes
    segments_s3: Int64s
    parts_r4: Int64s
    pieces_p4: Int64s
    wholes_v5: Int64s
    largest_cut: int
    """Ids of the largest table that is cut up."""
    largest_whole: int


class Deduplicator:
    """Finds distinct ids with up to ``threads`` threads. Callers on several threads each get a workbench of their own.

    Benches are kept between calls: at most KEPT_BENCHES, each with a hash table per thread of 32 to 64 bytes per id of the largest
    table in the largest batch that was cut up (touched only where ids fell), and one of 16 to 32 per id of the largest that was not.
    """

    def __init__(self, threads: int, recycler: Recycler) -> None:
        self._threads = threads
        self._recycler = recycler
        self._idle: list[Workbench] = []
        self._last_cuts: _Cuts | None = None
        self._lock = threading.Lock()

    def find(self, batch: BatchIds) -> UniqueIds:
        """See ``Backend.deduplicate``."""
        num_ids, num_tables = batch.ids_n.shape[0], batch.features.num_tables
        assert num_ids <= MAX_IDS, f"{num_ids} ids in one batch; the limit is {MAX_IDS}"
        cuts = self._cut(batch)
        job, found = self._job(batch.ids_n, cuts), self._found(num_ids)
        bench = self._take(cuts)
        count = distinct(job, found, bench, self._threads)
        self._give_back(bench)
        tables_u = found.tables_u[:count]
        return UniqueIds(
            ids_u=found.ids_u[:count],
            tables_u=tables_u,
            table_start_t=np.searchsorted(tables_u, np.arange(num_tables + 1, dtype=np.int32)),
            inverse_n=found.inverse_n,
            occurrence_start_u=found.starts_u[: count + 1],
            occurrences_n=found.occurrences_n,
        )

    def _cut(self, batch: BatchIds) -> _Cuts:
        """How to cut the batch up: often as the one before, since it depends on the features' sizes alone."""
        key = batch.feature_start_f.tobytes() + batch.features.tables_f.tobytes()
        cuts = self._last_cuts
        if cuts is None or cuts.key != key:
            cuts = self._last_cuts = _cut(batch, key, self._threads)
        return cuts

    def _job(self, ids_n: Int64s, cuts: _Cuts) -> Job:
        wide, narrow = (np.int64, ids_n.shape[0]), (np.int32, ids_n.shape[0])
        first_n, counts_n, kept_n, tallies_n = self._recycler.arrays(narrow, wide, wide, narrow)
        return Job(
            ids_n=plain(ids_n, np.int64),
            segments_s3=cuts.segments_s3,
            parts_r4=cuts.parts_r4,
            pieces_p4=cuts.pieces_p4,
            wholes_v5=cuts.wholes_v5,
            first_n=first_n,
            counts_n=counts_n,
            kept_n=kept_n,
            tallies_n=tallies_n,
            sums_c2=np.empty((cuts.pieces_p4.shape[0] + cuts.wholes_v5.shape[0] + 1, 2), np.int64),
        )

    def _found(self, num_ids: int) -> Found:
        wide, narrow = (np.int64, num_ids), (np.int32, num_ids)
        return Found(*self._recycler.arrays(wide, narrow, (np.int64, num_ids + 1), narrow, narrow))

    def _take(self, cuts: _Cuts) -> Workbench:
        entries = _power_of_two(2 * cuts.largest_cut, SMALLEST)
        numbers = _power_of_two(4 * cuts.largest_whole, SMALLEST_WHOLE)
        with self._lock:
            bench = self._idle.pop() if self._idle else None
        if bench is None or bench.tables_wh2.shape[1] < entries or bench.numbers_wh.shape[1] < numbers:
            bench = _new_bench(self._threads, entries, numbers)
        return bench

    def _give_back(self, bench: Workbench) -> None:
        with self._lock:
            if len(self._idle) < KEPT_BENCHES:
                self._idle.append(bench)


def _power_of_two(at_least: int, smallest: int) -> int:
    return max(smallest, 1 << max(0, at_least - 1).bit_length())


def _new_bench(threads: int, entries: int, numbers: int) -> Workbench:
    return Workbench(
        tables_wh2=allocate(threads, entries * 16).view(np.int64).reshape(threads, entries, 2),
        numbers_wh=allocate(threads, numbers * 4).view(np.int32),
        stamps_w=np.zeros(threads, np.int64),
        positions_wb=np.empty((threads, BLOCK), np.int32),
        hashes_wb=np.empty((threads, BLOCK), np.uint64),
    )


def _cut(batch: BatchIds, key: bytes, threads: int) -> _Cuts:
    segments = _segments(batch)
    sizes_s = segments[:, 2] - segments[:, 1]
    ids_t = np.bincount(segments[:, 0], sizes_s, batch.features.num_tables).astype(np.int64)
    parts_t = _parts_of_tables(ids_t, threads)
    is_cut_t, is_whole_t = parts_t > 1, parts_t == 1
    pieces, wholes = _pieces(segments[is_cut_t[segments[:, 0]]]), _wholes(segments, ids_t, is_whole_t)
    c = np.argsort(np.argsort(np.concatenate([pieces[:, 0], wholes[:, 0]]), kind="stable"))
    return _Cuts(
        key=key,
        segments_s3=segments,
        parts_r4=_parts(segments, ids_t, parts_t),
        pieces_p4=np.column_stack([pieces, c[: pieces.shape[0]]]),
        wholes_v5=np.column_stack([wholes, c[pieces.shape[0] :]]),
        largest_cut=int(ids_t[is_cut_t].max(initial=0)),
        largest_whole=int(ids_t[is_whole_t].max(initial=0)),
    )


def _segments(batch: BatchIds) -> Int64s:
    """[F, 3] (table, start, end) of each feature, by table, features of a table in order."""
    starts, tables = batch.feature_start_f, batch.features.tables_f
    order = np.argsort(tables, kind="stable")
    return np.stack([tables[order].astype(np.int64), starts[order], starts[order + 1]], axis=1)


def _parts_of_tables(ids_t: Int64s, threads: int) -> Int64s:
    """How many parts to cut each table into: several where it is large beside a thread's share, none where it has no ids."""
    share = max(1, int(ids_t.sum()) // (2 * threads), PIECE)
    return np.clip(-(-ids_t // share), 0, threads)


def _parts(segments_s3: Int64s, ids_t: Int64s, parts_t: Int64s) -> Int64s:
    """[R, 4] the parts of tables that are cut up, largest tables first."""
    bounds = np.searchsorted(segments_s3[:, 0], np.arange(ids_t.shape[0] + 1))
    rows = [
        (bounds[table], bounds[table + 1], part, parts_t[table])
        for table in np.argsort(-ids_t, kind="stable").tolist()
        if parts_t[table] > 1
        for part in range(int(parts_t[table]))
    ]
    return np.array(rows, np.int64).reshape(-1, 4)


def _wholes(segments_s3: Int64s, ids_t: Int64s, is_whole_t: npt.NDArray[np.bool_]) -> Int64s:
    """[V, 4] (table, first segment, last segment + 1, ids of the tables before it), largest tables first."""
    bounds = np.searchsorted(segments_s3[:, 0], np.arange(ids_t.shape[0] + 1))
    before_t = np.cumsum(ids_t) - ids_t
    order = np.argsort(-ids_t, kind="stable")
    order = order[is_whole_t[order]]
    return np.stack([order, bounds[order], bounds[order + 1], before_t[order]], axis=1)


def _pieces(segments_s3: Int64s) -> Int64s:
    """[P, 3] the segments, cut to at most PIECE positions."""
    tables, starts, ends = segments_s3.T
    counts = -(-(ends - starts) // PIECE)
    segment_p = np.repeat(np.arange(segments_s3.shape[0]), counts)
    within_p = np.arange(segment_p.shape[0]) - np.repeat(np.cumsum(counts) - counts, counts)
    start_p = starts[segment_p] + within_p * PIECE
    return np.stack([tables[segment_p], start_p, np.minimum(start_p + PIECE, ends[segment_p])], axis=1)
