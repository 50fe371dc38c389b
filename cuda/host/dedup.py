"""Kernels that find the distinct (table, id) pairs of a batch. ``distinct`` is the wrapper that people call.

Four passes, each parallel, also within one large table; the result depends on no thread count:

1. *first*: per part of a table (a range of hashes; a small table is one part), every position learns the first position of its id,
   and every first position how often its id occurs.
2. *count*: per piece of positions, how many firsts it has and how often they occur; a running sum gives each piece its start.
3. *rank*: per piece, every first gets its number u and the start of its occurrences.
4. *place*: per part, every position copies its first's number and takes its place among the occurrences.

Legend: N positions, S segments (a table's features, one after the other), R parts, C pieces, W threads, H entries of a hash table.
A hash table's entry is two words: the id, and stamp << 32 | first position. Only entries of the current stamp count, so a table is
never cleared between two uses.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import prange

from cuda.host.compiled import device, parallel_kernel
from cuda.host.hashing import mix
from cuda.host.machine import prefetch_write, take
from cuda.plan import Int32s, Int64s

PIECE = 4096
BLOCK = 512
SMALLEST = 4 * BLOCK
"""Entries of the smallest hash table: half full and one block more, it still has empty entries, so searches end."""
AHEAD = 12
_LOW = 0xFFFFFFFF
_LAST_STAMP = (1 << 31) - 1
_HALF = np.uint64(32)

HashTables = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


class Job(NamedTuple):
    """What the passes share: the ids, how they are cut up, and room to work in."""

    ids_n: Int64s
    segments_s3: Int64s
    """[S, 3] (table, start, end), by table."""
    parts_r4: Int64s
    """[R, 4] (first segment, last segment + 1, part, number of parts)."""
    pieces_c3: Int64s
    """[C, 3] the segments, cut to at most PIECE positions."""
    first_n: Int32s
    counts_n: Int64s
    """At first positions: how often the id occurs, and from pass 3 on the next place among the occurrences."""
    sums_c2: Int64s


class Found(NamedTuple):
    """The result, in arrays N (``starts_u``: N + 1) long of which the first U are used."""

    ids_u: Int64s
    tables_u: Int32s
    starts_u: Int64s
    inverse_n: Int32s
    occurrences_n: Int32s


class Workbench(NamedTuple):
    """What one thread works with, kept from call to call."""

    tables_wh2: HashTables
    """[W, H, 2]; H is a power of two, at least twice the ids of the largest table."""
    stamps_w: Int64s
    positions_wb: Int32s
    """[W, BLOCK]"""
    hashes_wb: Hashes


@device
def _select(job: Job, bench: Workbench, worker: int, r: int, start: int, end: int) -> int:
    """Hash a block of positions and put those that fall into part r, and their hashes, on the bench; returns how many.

    A part owns a range of the hash's high half. No branches: whether a position falls into it cannot be predicted.
    """
    positions, hashes = bench.positions_wb[worker], bench.hashes_wb[worker]
    part, parts = np.uint64(job.parts_r4[r, 2]), np.uint64(job.parts_r4[r, 3])
    for k in range(end - start):
        hashes[k] = mix(job.ids_n[start + k])
    count = 0
    for k in range(end - start):
        hashed = hashes[k]
        positions[count] = start + k
        hashes[count] = hashed
        count += ((hashed >> _HALF) * parts) >> _HALF == part
    return count


@device
def _next_stamp(entries_h2: HashTables, stamps_w: Int64s, worker: int) -> Any:
    if stamps_w[worker] == _LAST_STAMP:
        for entry in range(entries_h2.shape[0]):
            entries_h2[entry, 1] = 0
        stamps_w[worker] = 0
    stamps_w[worker] += 1
    return stamps_w[worker] << 32


@device
def _first_of(entries_h2: HashTables, mask: int, stamp: int, number: int, hashed: Any, n: int) -> Any:
    """The first position of an id, which is ``n`` where it was not met before."""
    position = np.int64(hashed & np.uint64(mask))
    while True:
        word = entries_h2[position, 1]
        if (word & ~_LOW) != stamp:
            entries_h2[position, 0] = number
            entries_h2[position, 1] = stamp | n
            return n
        if entries_h2[position, 0] == number:
            return word & _LOW
        position = (position + 1) & mask


@device
def _block_firsts(job: Job, bench: Workbench, worker: int, count: int, mask: int, stamp: int) -> int:
    """Pass 1 for what lies on the bench; returns how many ids were new."""
    entries, positions, hashes = bench.tables_wh2[worker], bench.positions_wb[worker], bench.hashes_wb[worker]
    base, new = entries.ctypes.data, 0
    for k in range(count):
        ahead = hashes[min(k + AHEAD, count - 1)]
        prefetch_write(base + 16 * np.int64(ahead & np.uint64(mask)))
        n: Any = np.int64(positions[k])
        first = _first_of(entries, mask, stamp, job.ids_n[n], hashes[k], n)
        job.first_n[n] = first
        if first < n:
            job.counts_n[first] += 1
        else:
            job.counts_n[n] = 1
            new += 1
    return new


@device
def _try_firsts(job: Job, bench: Workbench, worker: int, r: int, mask: int) -> bool:
    """Pass 1 for one part with ``mask + 1`` entries; False when they got more than half full."""
    stamp = _next_stamp(bench.tables_wh2[worker], bench.stamps_w, worker)
    room = (mask + 1) >> 1
    for s in range(job.parts_r4[r, 0], job.parts_r4[r, 1]):
        for start in range(job.segments_s3[s, 1], job.segments_s3[s, 2], BLOCK):
            count = _select(job, bench, worker, r, start, min(start + BLOCK, job.segments_s3[s, 2]))
            room -= _block_firsts(job, bench, worker, count, mask, stamp)
            if room < 0:
                return False
    return True


@device
def _firsts(job: Job, bench: Workbench, worker: int, r: int) -> None:
    """Pass 1 for one part, with as small a hash table as will do."""
    ids = 0
    for s in range(job.parts_r4[r, 0], job.parts_r4[r, 1]):
        ids += job.segments_s3[s, 2] - job.segments_s3[s, 1]
    mask = SMALLEST - 1
    while mask + 1 < 2 * (ids // job.parts_r4[r, 3]):
        mask = 2 * mask + 1
    while not _try_firsts(job, bench, worker, r, mask):
        mask = 2 * mask + 1


@device
def _count(job: Job, c: int) -> None:
    """Pass 2 for one piece."""
    firsts, occurrences = 0, 0
    for n in range(job.pieces_c3[c, 1], job.pieces_c3[c, 2]):
        if job.first_n[n] == n:
            firsts += 1
            occurrences += job.counts_n[n]
    job.sums_c2[c, 0] = firsts
    job.sums_c2[c, 1] = occurrences


@device
def _starts(job: Job, found: Found) -> int:
    """Turn the sums of pieces into their starts; returns U."""
    firsts, occurrences = 0, 0
    for c in range(job.pieces_c3.shape[0]):
        piece_firsts, piece_occurrences = job.sums_c2[c]
        job.sums_c2[c, 0] = firsts
        job.sums_c2[c, 1] = occurrences
        firsts += piece_firsts
        occurrences += piece_occurrences
    found.starts_u[firsts] = occurrences
    return firsts


@device
def _rank(job: Job, found: Found, c: int) -> None:
    """Pass 3 for one piece; turns counts into places."""
    table, start, end = job.pieces_c3[c]
    u, place = job.sums_c2[c]
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
def _place(job: Job, found: Found, bench: Workbench, worker: int, r: int) -> None:
    """Pass 4 for one part. It touches only positions of this part, so no other thread meets it."""
    positions = bench.positions_wb[worker]
    for s in range(job.parts_r4[r, 0], job.parts_r4[r, 1]):
        for start in range(job.segments_s3[s, 1], job.segments_s3[s, 2], BLOCK):
            count = _select(job, bench, worker, r, start, min(start + BLOCK, job.segments_s3[s, 2]))
            for k in range(count):
                n = positions[k]
                first = job.first_n[n]
                found.inverse_n[n] = found.inverse_n[first]
                found.occurrences_n[job.counts_n[first]] = n
                job.counts_n[first] += 1


@parallel_kernel
def distinct(job: Job, found: Found, bench: Workbench, threads: int) -> int:
    """The four passes; returns U."""
    taken = np.zeros(4, np.int64)
    num_parts, num_pieces = job.parts_r4.shape[0], job.pieces_c3.shape[0]
    for worker in prange(threads):
        r = take(taken, 0, 1)
        while r < num_parts:
            _firsts(job, bench, worker, r)
            r = take(taken, 0, 1)
    for _ in prange(threads):
        c = take(taken, 1, 1)
        while c < num_pieces:
            _count(job, c)
            c = take(taken, 1, 1)
    count = _starts(job, found)
    for _ in prange(threads):
        c = take(taken, 2, 1)
        while c < num_pieces:
            _rank(job, found, c)
            c = take(taken, 2, 1)
    for worker in prange(threads):
        r = take(taken, 3, 1)
        while r < num_parts:
            _place(job, found, bench, worker, r)
            r = take(taken, 3, 1)
    return count
