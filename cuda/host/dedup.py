"""Kernels that find the distinct (table, id) pairs of a batch. ``distinct`` is the wrapper that people call.

Tables far smaller than a thread's share are taken whole (``dedup_whole``). Others are cut up, and take four passes, each parallel
within one table; the result depends on no thread count:

1. *first*: per part of a table (a range of hashes), every position learns the first position of its id, and every first position
   how often its id occurs.
2. *count*: per piece of positions, how many firsts it has and how often they occur; a running sum gives each piece its start.
3. *rank*: per piece, every first gets its number u and the start of its occurrences.
4. *place*: per part, every position copies its first's number and takes its place among the occurrences.

The legend stands in ``dedup_job``. A hash table's entry is two words: the id, and stamp << 32 | first position. Only entries of the
current stamp count, so a table is never cleared between two uses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from cuda.host.compiled import device, parallel_kernel
from cuda.host.dedup_job import (
    BLOCK,
    Found,
    Job,
    Workbench,
    bench_pointers,
    found_pointers,
    job_pointers,
    part_of_table,
    piece,
    segment,
)
from cuda.host.dedup_whole import number_whole, settle_whole
from cuda.host.hashing import mix
from cuda.host.machine import prefetch_write, take
from cuda.plan import Int64s

PIECE = 4096
SMALLEST = 4 * BLOCK
"""Entries of the smallest hash table: half full and one block more, it still has empty entries, so searches end."""
AHEAD = 12
"""Entries are asked for this many positions before they are looked at."""
_LOW = 0xFFFFFFFF
_LAST_STAMP = (1 << 31) - 1
_HALF = np.uint64(32)


@device
def _select(job: Job, bench: Workbench, part: int, parts: int, start: int, end: int) -> int:
    """Put the positions start .. end that fall into a part, and their hashes, on the bench; returns how many.

    A part owns a range of the hash's high half. No branches: whether a position falls into it cannot be predicted.
    """
    for k in range(end - start):
        bench.hashes_wb[k] = mix(job.ids_n[start + k])
        bench.positions_wb[k] = start + k
    count = 0
    for k in range(end - start):
        hashed = bench.hashes_wb[k]
        bench.positions_wb[count] = start + k
        bench.hashes_wb[count] = hashed
        count += ((hashed >> _HALF) * np.uint64(parts)) >> _HALF == np.uint64(part)
    return count


@device
def _next_stamp(bench: Workbench, capacity: int) -> Any:
    if bench.stamps_w[0] == _LAST_STAMP:
        for entry in range(capacity):
            bench.tables_wh2[2 * entry + 1] = 0
        bench.stamps_w[0] = 0
    bench.stamps_w[0] += 1
    return bench.stamps_w[0] << 32


@device
def _first_of(entries: Int64s, mask: int, stamp: int, number: int, hashed: Any, n: int) -> Any:
    """The first position of an id, which is ``n`` where it was not met before."""
    position = np.int64(hashed & np.uint64(mask))
    while True:
        word = entries[2 * position + 1]
        if (word & ~_LOW) != stamp:
            entries[2 * position] = number
            entries[2 * position + 1] = stamp | n
            return n
        if entries[2 * position] == number:
            return word & _LOW
        position = (position + 1) & mask


@device
def _block_firsts(job: Job, bench: Workbench, base: int, count: int, mask: int, stamp: int) -> int:
    """Pass 1 for what lies on the bench; returns how many ids were new. ``base``: address of the hash table."""
    new = 0
    for k in range(count):
        ahead = bench.hashes_wb[min(k + AHEAD, count - 1)]
        prefetch_write(base + 16 * np.int64(ahead & np.uint64(mask)), 16)
        n: Any = np.int64(bench.positions_wb[k])
        first = _first_of(bench.tables_wh2, mask, stamp, job.ids_n[n], bench.hashes_wb[k], n)
        job.first_n[n] = first
        if first < n:
            job.counts_n[first] += 1
        else:
            job.counts_n[n] = 1
            new += 1
    return new


@device
def _try_firsts(job: Job, bench: Workbench, base: int, capacity: int, r: int, mask: int) -> bool:
    """Pass 1 for one part with ``mask + 1`` entries; False when they got more than half full."""
    stamp, room = _next_stamp(bench, capacity), (mask + 1) >> 1
    first_segment, last_segment, part, parts = part_of_table(job, r)
    for s in range(first_segment, last_segment):
        start, end = segment(job, s)
        while start < end:
            count = _select(job, bench, part, parts, start, min(start + BLOCK, end))
            room -= _block_firsts(job, bench, base, count, mask, stamp)
            if room < 0:
                return False
            start += BLOCK
    return True


@device
def _firsts(job: Job, bench: Workbench, base: int, capacity: int, r: int) -> None:
    """Pass 1 for one part, with as small a hash table as will do."""
    first_segment, last_segment, _, parts = part_of_table(job, r)
    ids, mask = 0, SMALLEST - 1
    for s in range(first_segment, last_segment):
        start, end = segment(job, s)
        ids += end - start
    while mask + 1 < 2 * (ids // parts):
        mask = 2 * mask + 1
    while not _try_firsts(job, bench, base, capacity, r, mask):
        mask = 2 * mask + 1


@device
def _count(job: Job, p: int) -> None:
    """Pass 2 for one piece."""
    _, start, end, c = piece(job, p)
    firsts, occurrences = 0, 0
    for n in range(start, end):
        if job.first_n[n] == n:
            firsts += 1
            occurrences += job.counts_n[n]
    job.sums_c2[2 * c] = firsts
    job.sums_c2[2 * c + 1] = occurrences


@device
def _starts(job: Job, found: Found, num_sums: int) -> int:
    """Turn the sums of pieces and whole tables into their starts; returns U."""
    firsts, occurrences = 0, 0
    for c in range(num_sums):
        piece_firsts, piece_occurrences = job.sums_c2[2 * c], job.sums_c2[2 * c + 1]
        job.sums_c2[2 * c] = firsts
        job.sums_c2[2 * c + 1] = occurrences
        firsts += piece_firsts
        occurrences += piece_occurrences
    job.sums_c2[2 * num_sums] = firsts
    found.starts_u[firsts] = occurrences
    return firsts


@device
def _rank(job: Job, found: Found, p: int) -> None:
    """Pass 3 for one piece; turns counts into places."""
    table, start, end, c = piece(job, p)
    u, place = job.sums_c2[2 * c], job.sums_c2[2 * c + 1]
    for n in range(start, end):
        if job.first_n[n] == n:
            found.inverse_n[n] = u
            found.ids_u[u] = job.ids_n[n]
            found.tables_u[u] = table
            found.starts_u[u] = place
            count = job.counts_n[n]
            job.counts_n[n] = place
            place += count
            u += 1


@device
def _place_one(job: Job, found: Found, n: int) -> None:
    first = job.first_n[n]
    found.inverse_n[n] = found.inverse_n[first]
    found.occurrences_n[job.counts_n[first]] = n
    job.counts_n[first] += 1


@device
def _place(job: Job, found: Found, bench: Workbench, r: int) -> None:
    """Pass 4 for one part. It touches only positions of this part, so no other thread meets it."""
    first_segment, last_segment, part, parts = part_of_table(job, r)
    for s in range(first_segment, last_segment):
        start, end = segment(job, s)
        while start < end:
            for k in range(_select(job, bench, part, parts, start, min(start + BLOCK, end))):
                _place_one(job, found, bench.positions_wb[k])
            start += BLOCK


@device
def _begin(job: Job, found: Found, bench: Workbench, addresses: Any, capacity: int, num_parts: int, item: int) -> None:
    """Pass 1 of a part or, behind all parts, of a whole table. ``addresses``: of the thread's two hash tables."""
    if item < num_parts:
        _firsts(job, bench, addresses[0], capacity, item)
    else:
        number_whole(job, found, bench, addresses[1], item - num_parts)


@device
def _go_on(job: Job, found: Found, num_pieces: int, item: int) -> None:
    """Pass 3 of a piece or, behind all pieces, the second of a whole table."""
    if item < num_pieces:
        _rank(job, found, item)
    else:
        settle_whole(job, found, item - num_pieces)


@parallel_kernel
def distinct(job: Job, found: Found, bench: Workbench, threads: int) -> int:
    """All passes; returns U."""
    taken = np.zeros(4, np.int64)
    num_parts, num_pieces, num_wholes = job.parts_r4.shape[0], job.pieces_p4.shape[0], job.wholes_v5.shape[0]
    entries, numbers = bench.tables_wh2.shape[1], bench.numbers_wh.shape[1]
    for worker in prange(threads):
        item = take(taken, 0, 1)
        while item < num_parts + num_wholes:
            at = (
                bench.tables_wh2.ctypes.data + 16 * worker * entries,
                bench.numbers_wh.ctypes.data + 4 * worker * numbers,
            )
            _begin(
                job_pointers(job), found_pointers(found), bench_pointers(bench, worker), at, entries, num_parts, item
            )
            item = take(taken, 0, 1)
    if num_pieces:
        for _ in prange(threads):
            p = take(taken, 1, 1)
            while p < num_pieces:
                _count(job_pointers(job), p)
                p = take(taken, 1, 1)
    count = _starts(job_pointers(job), found_pointers(found), num_pieces + num_wholes)
    for _ in prange(threads):
        item = take(taken, 2, 1)
        while item < num_pieces + num_wholes:
            _go_on(job_pointers(job), found_pointers(found), num_pieces, item)
            item = take(taken, 2, 1)
    if num_parts:
        for worker in prange(threads):
            r = take(taken, 3, 1)
            while r < num_parts:
                _place(job_pointers(job), found_pointers(found), bench_pointers(bench, worker), r)
                r = take(taken, 3, 1)
    return count
