"""Distinct ids of tables that one thread takes whole: two passes over a table, all of whose memory fits near the thread.

1. *number*: every id gets the number of its first occurrence among the table's distinct ids, and is counted.
2. *settle*: numbers become those of the batch, and every occurrence takes its place.

The hash table holds numbers of 4 bytes, so that of some thousand ids fits in the nearest cache though it is mostly empty, which spares
searches and mispredicted branches; the ids lie in order of number beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cuda.host.compiled import device
from cuda.host.dedup_job import BLOCK, Found, Job, Workbench, segment, whole_table
from cuda.host.hashing import mix
from cuda.host.machine import prefetch_write

AHEAD = 16
"""Entries are asked for this many positions before they are looked at."""
SMALLEST = 64
NEAR = 8192
"""Entries of a hash table that lies in the nearest cache anyway."""
_NONE = -1


@device
def _clear(bench: Workbench, ids: int) -> int:
    """Empty a hash table that ``ids`` fill at most to a quarter; returns its mask."""
    mask = SMALLEST - 1
    while mask + 1 < 4 * ids:
        mask = 2 * mask + 1
    for entry in range(mask + 1):
        bench.numbers_wh[entry] = _NONE
    return mask


@device
def _number_one(job: Job, bench: Workbench, mask: int, base: int, known: int, number: int, entry: Any) -> Any:
    """The number of an id whose search begins at ``entry``: ``known``, where it was not met before."""
    while True:
        u = bench.numbers_wh[entry]
        if u == _NONE:
            bench.numbers_wh[entry] = known
            job.kept_n[base + known] = number
            job.tallies_n[base + known] = 1
            return known
        if job.kept_n[base + u] == number:
            job.tallies_n[base + u] += 1
            return np.int64(u)
        entry = (entry + 1) & mask


@device
def _number_block(
    job: Job, found: Found, bench: Workbench, numbers: int, mask: int, base: int, known: int, start: int, end: int
) -> int:
    """Pass 1 for at most BLOCK positions; ``known`` ids were met before. Returns how many are known now."""
    for k in range(end - start):
        bench.hashes_wb[k] = mix(job.ids_n[start + k]) & np.uint64(mask)
    for k in range(end - start):
        if mask >= NEAR:
            prefetch_write(numbers + 4 * np.int64(bench.hashes_wb[min(k + AHEAD, end - start - 1)]), 4)
        u = _number_one(job, bench, mask, base, known, job.ids_n[start + k], np.int64(bench.hashes_wb[k]))
        found.inverse_n[start + k] = u
        known += u == known
    return known


@device
def number_whole(job: Job, found: Found, bench: Workbench, numbers: int, v: int) -> None:
    """Pass 1 for one table. ``numbers``: address of the thread's hash table."""
    _, first_segment, last_segment, base, c = whole_table(job, v)
    ids, known = 0, 0
    for s in range(first_segment, last_segment):
        start, end = segment(job, s)
        ids += end - start
    mask = _clear(bench, ids)
    for s in range(first_segment, last_segment):
        start, end = segment(job, s)
        while start < end:
            known = _number_block(job, found, bench, numbers, mask, base, known, start, min(start + BLOCK, end))
            start += BLOCK
    job.sums_c2[2 * c] = known
    job.sums_c2[2 * c + 1] = ids


@device
def settle_whole(job: Job, found: Found, v: int) -> None:
    """Pass 2 for one table."""
    table, first_segment, last_segment, base, c = whole_table(job, v)
    first, place = job.sums_c2[2 * c], base
    for u in range(job.sums_c2[2 * c + 2] - first):
        found.ids_u[first + u] = job.kept_n[base + u]
        found.tables_u[first + u] = table
        found.starts_u[first + u] = place
        count = job.tallies_n[base + u]
        job.tallies_n[base + u] = place
        place += count
    for s in range(first_segment, last_segment):
        start, end = segment(job, s)
        for n in range(start, end):
            u = found.inverse_n[n]
            found.inverse_n[n] = first + u
            found.occurrences_n[job.tallies_n[base + u]] = n
            job.tallies_n[base + u] += 1
