"""The DRAM tier's rows of many tables at once, compiled: found, and moved straight between the tier and where they are wanted.

``tables_tf`` describes the tables, int64 [T, FIELDS]: addresses and sizes, good while each table's lock is held.

Legend: n rows of one call, distinct pairs of table and id where they are put; T tables.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from pipeline.rows.index_kernels import EMPTY, HALF, LOW_32, find_tagged, tag_of
from pipeline.rows.native import ask_for, pointer, read_word, write_word
from pipeline.store.compiled import device, kernel
from pipeline.store.row_blocks import ask_for_row

ENTRIES, NUM_ENTRIES, IDS, NUM_IDS, BASES, STRIDE, WORDS, FIELDS = range(8)
"""Of a table: its index's two arrays; the addresses of its chunks; bytes from row to row; words of a row without its version."""
BLOCK: Final = 128
"""Rows that are looked for together."""
ROW_AHEAD: Final = 6
"""Rows that are asked for ahead of their copy."""


@kernel
def find_places(tables_tf, tables_n, ids_n, places_n):  # type: ignore[no-untyped-def]
    """Write the place of each row, -1 where it is absent; returns how many are.

    Entry and id lie anywhere in memory. So a block of rows is walked three times: each walk asks for what the next one looks at.
    """
    absent, tags_b = 0, np.empty(BLOCK, np.uint64)
    for start in range(0, ids_n.shape[0], BLOCK):
        stop = min(start + BLOCK, ids_n.shape[0])
        for n in range(start, stop):
            tag = tag_of(ids_n[n])
            tags_b[n - start] = tag
            ask_for(_home(tables_tf, tables_n[n], tag))
        for n in range(start, stop):
            entry = np.uint64(read_word(_home(tables_tf, tables_n[n], tags_b[n - start])))
            if entry >> HALF == tags_b[n - start]:
                ask_for(tables_tf[tables_n[n], IDS] + 8 * np.int64(entry & LOW_32))
        for n in range(start, stop):
            places_n[n] = _find(tables_tf, tables_n[n], tags_b[n - start], ids_n[n])
            absent += places_n[n] < 0
    return absent


@device
def _home(tables_tf, table, tag):  # type: ignore[no-untyped-def]
    """The address of the entry where the search for an id begins."""
    return tables_tf[table, ENTRIES] + 8 * np.int64(tag & np.uint64(tables_tf[table, NUM_ENTRIES] - 1))


@device
def _find(tables_tf, table, tag, row_id):  # type: ignore[no-untyped-def]
    """The place of a row, or -1."""
    entries_c = carray(pointer(tables_tf[table, ENTRIES]), (tables_tf[table, NUM_ENTRIES],), np.uint64)
    ids_p = carray(pointer(tables_tf[table, IDS]), (tables_tf[table, NUM_IDS],), np.int64)
    entry = entries_c[find_tagged(entries_c, ids_p, tag, row_id)]
    return np.int64(-1) if entry == EMPTY else np.int64(entry & LOW_32)


@device
def _address(tables_tf, shift, table, place):  # type: ignore[no-untyped-def]
    chunk = read_word(tables_tf[table, BASES] + 8 * (place >> shift))
    return chunk + (place & ((np.int64(1) << shift) - 1)) * tables_tf[table, STRIDE]


@kernel
def move_rows(tables_tf, shift, tables_n, places_n, rows_at_n, versions_at_n, into_tier):  # type: ignore[no-untyped-def]
    """Copy rows and versions between their places in the tier and the addresses given; place -1: nothing is copied."""
    count = places_n.shape[0]
    for n in range(count):
        ahead = min(n + ROW_AHEAD, count - 1)
        if places_n[ahead] >= 0:
            table = tables_n[ahead]
            ask_for_row(_address(tables_tf, shift, table, places_n[ahead]), tables_tf[table, STRIDE])
            ask_for_row(rows_at_n[ahead], 8 * tables_tf[table, WORDS])
        if places_n[n] < 0:
            continue
        table = tables_n[n]
        words, address = tables_tf[table, WORDS], _address(tables_tf, shift, table, places_n[n])
        here = carray(pointer(address), (words,), np.int64)
        there = carray(pointer(rows_at_n[n]), (words,), np.int64)
        if into_tier:
            for w in range(words):
                here[w] = there[w]
            write_word(address + 8 * words, read_word(versions_at_n[n]))
        else:
            for w in range(words):
                there[w] = here[w]
            write_word(versions_at_n[n], read_word(address + 8 * words))
