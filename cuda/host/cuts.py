"""Kernels for a cut of the stream: changed rows are found, each once, and encoded where they lie.

A row that another thread writes meanwhile may come out torn, but its digest is that of what came out.

Legend: M ids of all groups; G groups, as of steps; T tables; N distinct rows; C entries of the map; S slots; b bytes of a frame's content.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cuda.host.compiled import kernel
from cuda.host.machine import pointer, prefetch_read, put_bytes, put_word
from cuda.host.narrow import weight_bytes, whole, widen_row
from cuda.host.rows import AHEAD as ROWS_AHEAD
from cuda.host.rows import Pool, RowBytes, prefetch_row, row_address
from cuda.host.slotmap import AHEAD, EMPTY, Entries, find, home_of
from cuda.plan import Int32s, Int64s
from pipeline.rows.codec.formulas import decode_row, encode_row
from pipeline.rows.digest import row_key
from pipeline.rows.narrow import SINGLE
from pipeline.rows.version import MAX_STEP
from pipeline.rows.xxh64 import xxh64

_LOW = 0xFFFFFFFF
_STEPS = np.int64(MAX_STEP)
Words = npt.NDArray[np.uint32]


@kernel
def find_distinct(
    entries_c2: Entries, ids_m: Int64s, starts_gt: Int64s, marks_s: Int32s, mark: int, slots_m: Int32s, counts_t: Int64s
) -> int:
    """Write the slots of the distinct pairs to the front of ``slots_m``: table by table, in order of first occurrence.

    How many each table has goes to ``counts_t``. Returns how many there are in all, or -1 where a pair is not resident. No mark
    is ``mark`` before.
    """
    base, marks, count, at = entries_c2.ctypes.data, marks_s.ctypes.data, 0, 0
    for t in range(counts_t.shape[0]):
        before, first_at = count, at
        for g in range(starts_gt.shape[0]):
            first, last = starts_gt[g, t], starts_gt[g, t + 1]
            for m in range(first, min(first + AHEAD, last)):
                prefetch_read(base + 16 * home_of(entries_c2, t, ids_m[m]), 16)
            for m in range(first, last):
                if m + AHEAD < last:
                    prefetch_read(base + 16 * home_of(entries_c2, t, ids_m[m + AHEAD]), 16)
                word = entries_c2[find(entries_c2, t, ids_m[m]), 1]
                if word == EMPTY:
                    return -1
                slots_m[at] = word & _LOW
                prefetch_read(marks + 4 * (word & _LOW), 4)
                at += 1
        for k in range(first_at, at):
            slot = slots_m[k]
            if marks_s[slot] != mark:
                marks_s[slot] = mark
                slots_m[count] = slot  # never behind k
                count += 1
        counts_t[t] = count - before
    return count


@kernel
def encode_slots(
    pool: Pool,
    words_w: Words,
    pair_ids_s: Int64s,
    slots_n: Int32s,
    counts_t: Int64s,
    dims_t: Int64s,
    kinds_t: Int64s,
    codecs_t: Int64s,
    row_bytes_t: Int64s,
    keys_t: npt.NDArray[np.uint64],
    low: int,
    high: int,
    content_b: RowBytes,
    ids_at: int,
    rows_at: int,
    versions_at: int,
) -> Any:
    """Encode the rows of slots, those of table 0 first, into a frame's content by each table's codec (``rows.codec.formulas``).

    ``kinds_t`` says what the weights in the pool are; ``words_w`` is the pool as words. Returns (the sum of ``rows.digest`` of what
    a reader decodes, how many versions are not within ``low + 1 .. high``).
    """
    widest = whole(dims_t.max())
    shorts_d, weights_d, decoded_d = (
        np.empty(widest, np.uint16),
        np.empty(widest, np.uint32),
        np.empty(widest, np.uint32),
    )
    encoded_b = np.empty(row_bytes_t.max(), np.uint8)
    decoded_bytes = decoded_d.view(np.uint8)
    versions, step, words, ids = pointer(pool.versions), pool.version_step, pool.stride >> 2, pointer(pair_ids_s)
    content, versions_base, ids_base = content_b.ctypes.data, pool.versions.ctypes.data, pair_ids_s.ctypes.data
    to_id, to_row, to_version = content + ids_at, content + rows_at, content + versions_at
    total, strangers, n, last = np.uint64(0), 0, 0, slots_n.shape[0] - 1
    for t in range(counts_t.shape[0]):
        dim, key, codec, kind, nbytes = dims_t[t], keys_t[t], codecs_t[t], kinds_t[t], row_bytes_t[t]
        row_b, singles_d = encoded_b[:nbytes], decoded_d[:dim]
        for _ in range(counts_t[t]):
            coming = slots_n[min(n + ROWS_AHEAD, last)]
            prefetch_row(row_address(pool, coming), weight_bytes(dim, kind))
            prefetch_read(versions_base + 8 * np.int64(coming) * step, 8)
            prefetch_read(ids_base + 8 * np.int64(coming), 8)
            slot = np.int64(slots_n[n])
            version, row_id = versions[slot * step], ids[slot]
            if kind == SINGLE:
                encode_row(codec, words_w[slot * words : slot * words + dim], row_b)
            else:
                widen_row(row_address(pool, slots_n[n]), kind, dim, shorts_d.ctypes.data, weights_d.ctypes.data)
                encode_row(codec, weights_d[:dim], row_b)
            decode_row(codec, row_b, singles_d)
            put_bytes(to_row, encoded_b.ctypes.data, nbytes)
            to_row += nbytes
            total += xxh64(decoded_bytes, 0, 4 * dim, row_key(key, row_id, version & _STEPS))
            strangers += version <= low or version > high
            put_word(to_id + 8 * n, row_id)
            put_word(to_version + 8 * n, version)
            n += 1
    return total, strangers
