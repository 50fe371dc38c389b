"""What the kernels of ``dedup`` and ``dedup_whole`` work on.

Legend: N positions, S segments (a table's features, one after the other), R parts and P pieces of tables that are cut up, V tables
that are not, C = P + V, H entries of a hash table, W threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cuda.host.compiled import device
from cuda.host.machine import pointer
from cuda.plan import Int32s, Int64s

BLOCK = 512
"""Positions that are hashed at a time."""

Hashes = npt.NDArray[np.uint64]


class Job(NamedTuple):
    """The ids, how the work is cut up, and what passes tell each other. Arrays outside kernels, flat pointers in their loops."""

    ids_n: Int64s
    segments_s3: Int64s
    """[S, 3] (table, start, end), by table."""
    parts_r4: Int64s
    """[R, 4] (first segment, last segment + 1, part, number of parts)."""
    pieces_p4: Int64s
    """[P, 4] (table, start, end, c)."""
    wholes_v5: Int64s
    """[V, 5] (table, first segment, last segment + 1, ids of the tables before it, c)."""
    first_n: Int32s
    """Of tables that are cut up: the first position of each position's id."""
    counts_n: Int64s
    """Of those, at first positions: how often the id occurs, and from pass 3 on the next place among the occurrences."""
    kept_n: Int64s
    """Of whole tables, from ``ids of the tables before it`` on: the distinct ids."""
    tallies_n: Int32s
    """Beside ``kept_n``: how often each occurs, then the next place among the occurrences."""
    sums_c2: Int64s
    """[C + 1, 2] by table, of each piece or whole table: firsts and occurrences; then the sums of those before it."""


class Found(NamedTuple):
    """The result, in arrays N (``starts_u``: N + 1) long of which the first U are used."""

    ids_u: Int64s
    tables_u: Int32s
    starts_u: Int64s
    inverse_n: Int32s
    occurrences_n: Int32s


class Workbench(NamedTuple):
    """What threads work with, one line each, kept from call to call. Inside kernels: pointers to one thread's lines."""

    tables_wh2: Int64s
    """[W, H, 2] hash tables; H is a power of two, at least twice the ids of the largest table that is cut up."""
    numbers_wh: Int32s
    """[W, H] those for whole tables; at least four times the ids of the largest."""
    stamps_w: Int64s
    """[W] the stamp of each hash table's last use."""
    positions_wb: Int32s
    """[W, BLOCK]"""
    hashes_wb: Hashes
    """[W, BLOCK]"""


@device
def job_pointers(job: Job) -> Job:
    """The job as the loops of kernels take it, see ``machine.pointer``."""
    return Job(
        pointer(job.ids_n),
        pointer(job.segments_s3),
        pointer(job.parts_r4),
        pointer(job.pieces_p4),
        pointer(job.wholes_v5),
        pointer(job.first_n),
        pointer(job.counts_n),
        pointer(job.kept_n),
        pointer(job.tallies_n),
        pointer(job.sums_c2),
    )


@device
def found_pointers(found: Found) -> Found:
    """The same for the result."""
    return Found(
        pointer(found.ids_u),
        pointer(found.tables_u),
        pointer(found.starts_u),
        pointer(found.inverse_n),
        pointer(found.occurrences_n),
    )


@device
def bench_pointers(bench: Workbench, worker: int) -> Workbench:
    """The same for one thread's lines of the workbench."""
    return Workbench(
        pointer(bench.tables_wh2[worker]),
        pointer(bench.numbers_wh[worker]),
        pointer(bench.stamps_w[worker:]),
        pointer(bench.positions_wb[worker]),
        pointer(bench.hashes_wb[worker]),
    )


@device
def part_of_table(job: Job, r: int) -> Any:
    """(first segment, last segment + 1, part, number of parts)"""
    return job.parts_r4[4 * r], job.parts_r4[4 * r + 1], job.parts_r4[4 * r + 2], job.parts_r4[4 * r + 3]


@device
def segment(job: Job, s: int) -> Any:
    """(start, end)"""
    return job.segments_s3[3 * s + 1], job.segments_s3[3 * s + 2]


@device
def piece(job: Job, p: int) -> Any:
    """(table, start, end, c)"""
    return job.pieces_p4[4 * p], job.pieces_p4[4 * p + 1], job.pieces_p4[4 * p + 2], job.pieces_p4[4 * p + 3]


@device
def whole_table(job: Job, v: int) -> Any:
    """(table, first segment, last segment + 1, ids of the tables before it, c)"""
    whole = job.wholes_v5
    return whole[5 * v], whole[5 * v + 1], whole[5 * v + 2], whole[5 * v + 3], whole[5 * v + 4]
