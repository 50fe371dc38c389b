"""Records come back as the rows they were made of; a changed byte, or another place, id or table, is told."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from pipeline.rowlog.log import record_kernels as kernels
from pipeline.rowlog.log.records import BLOCK, HEADER_BYTES, ROW_BITS, MemoryExtents, Records, Rows
from pipeline.rows import Column, Initializer, RowLayout, TableSpec
from tests.rowlog.logs import Int64s, RowBytes, ids_of, table

ANY = st.integers(-(2**63), 2**63 - 1)
SEGMENT = 5 << ROW_BITS
DIMS = st.integers(1, 70) | st.sampled_from([96, 120, 128, 200, 512, 1018, 1019, 1500])


def empty_rows(records: Records, count: int) -> Rows:
    return Rows(np.full((count, records.row_bytes), 0xA5, np.uint8), np.full(count, -7, np.int64))


def take(records: Records, data: RowBytes, places_n: Int64s, ids_n: Int64s) -> tuple[int, Rows]:
    """Unpack the records of ``data``, which begins with record 0."""
    offsets_n = records.offsets(places_n & ((1 << ROW_BITS) - 1)) - HEADER_BYTES
    rows = empty_rows(records, len(ids_n))
    return records.unpack(data, offsets_n, places_n, ids_n, np.arange(len(ids_n)), rows), rows


@given(
    dim=DIMS,
    states=st.integers(0, 2),
    pieces=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    wider=st.integers(0, 9),
    seed=st.integers(0, 2**32),
)
def test_rows_come_back_from_bytes_and_from_memory(
    dim: int, states: int, pieces: list[int], wider: int, seed: int
) -> None:
    rng, records, count = np.random.default_rng(seed), Records.of(table("t", dim, states)), sum(pieces)
    ids, versions = rng.integers(-(2**63), 2**63 - 1, count), rng.integers(-(2**63), 2**63 - 1, count)
    rows = rng.integers(0, 256, (count, records.row_bytes + wider), dtype=np.uint8)
    data = np.zeros(records.data_bytes(count), np.uint8)
    first = 0
    for piece in pieces:
        block = first // records.per_block * records.block
        some = slice(first, first + piece)
        records.pack(SEGMENT | first, ids[some], rows[some], versions[some], data[block:])
        first += piece
    order = rng.permutation(count)
    places = SEGMENT | order
    wrong, found = take(records, data, places, ids[order])
    assert wrong == -1
    assert np.array_equal(found.rows_nb, rows[order, : records.row_bytes])
    assert found.versions_n.tolist() == versions[order].tolist()
    extents = MemoryExtents(ids_of([SEGMENT]), ids_of([count]), ids_of([data.ctypes.data]))
    again = empty_rows(records, count)
    assert records.unpack_memory(extents, extents.find(places), places, ids[order], again) == -1
    assert np.array_equal(again.rows_nb, found.rows_nb)
    assert again.versions_n.tolist() == found.versions_n.tolist()


@given(dim=DIMS, states=st.integers(0, 2))
def test_records_lie_apart_and_fill_blocks(dim: int, states: int) -> None:
    records = Records.of(table("t", dim, states))
    numbers = np.arange(3 * records.per_block + 1)
    offsets = records.offsets(numbers)
    assert offsets[0] == HEADER_BYTES
    assert (np.diff(offsets) >= records.stride).all()
    assert records.data_bytes(len(numbers)) >= offsets[-1] - HEADER_BYTES + records.stride
    if records.block == BLOCK:
        assert (offsets // BLOCK == (offsets + records.stride - 1) // BLOCK).all(), "a record crosses a block's end"
        assert BLOCK - records.per_block * records.stride <= BLOCK // 8
    for nbytes in (4096, 10_000, 1 << 20):
        capacity = records.capacity(nbytes)
        assert capacity % records.per_block == 0
        assert records.data_bytes(capacity) <= max(nbytes, records.block)


@pytest.mark.parametrize("dim", [1, 3, 6])
def test_any_byte_of_a_record_that_was_changed_is_told(dim: int) -> None:
    records = Records.of(table("t", dim))
    ids, versions = ids_of([3, -4]), ids_of([8, 9])
    rows = np.arange(2 * records.row_bytes, dtype=np.uint8).reshape(2, -1)
    data = np.zeros(records.data_bytes(2), np.uint8)
    records.pack(SEGMENT, ids, rows, versions, data)
    for at in range(2 * records.stride):
        for mask in (1, 0x80, 0xFF):
            changed = data.copy()
            changed[at] ^= mask
            wrong, found = take(records, changed, SEGMENT | np.arange(2), ids)
            assert wrong == at // records.stride
            assert (found.rows_nb[wrong:] == 0xA5).all(), "a row that is not sound was copied"
            assert (found.versions_n[wrong:] == -7).all()


@given(row_id=ANY, other=ANY, place=st.integers(0, 2**62), elsewhere=st.integers(0, 2**62))
def test_a_record_of_another_id_place_or_table_is_told(row_id: int, other: int, place: int, elsewhere: int) -> None:
    records, foreign = Records.of(table("t", 4)), Records.of(table("u", 4))
    data = np.zeros(records.data_bytes(1), np.uint8)
    place = place >> ROW_BITS << ROW_BITS
    records.pack(place, ids_of([row_id]), np.ones((1, 16), np.uint8), ids_of([1]), data)

    def wrong(how: Records, asked: int, at: int) -> int:
        into = empty_rows(how, 1)
        return how.unpack(data, ids_of([0]), ids_of([at]), ids_of([asked]), ids_of([0]), into)

    assert wrong(records, row_id, place) == -1
    assert wrong(records, other, place) == (-1 if other == row_id else 0)
    assert wrong(records, row_id, elsewhere) == (-1 if elsewhere == place else 0)
    assert wrong(foreign, row_id, place) == 0


def test_places_are_found_in_the_runs_that_hold_them() -> None:
    runs = MemoryExtents(ids_of([10, 40, 2**40]), ids_of([5, 60, 1]), ids_of([0, 0, 0]))
    places = ids_of([-1, 0, 9, 10, 14, 15, 39, 40, 99, 100, 2**40, 2**40 + 1])
    assert runs.find(places).tolist() == [-1, -1, -1, 0, 0, -1, -1, 1, 1, -1, 2, -1]


def test_rows_of_odd_sizes_are_copied_whole() -> None:
    """Columns of 8-byte numbers and of single floats: a row need not be whole words."""
    columns = (Column("weight", "float32", 3, "weight"), Column("second", "float64", 2, "state"))
    records = Records.of(TableSpec("t", RowLayout(columns), Initializer(), 1))
    rows = np.random.default_rng().integers(0, 256, (40, records.row_bytes), dtype=np.uint8)
    data = np.zeros(records.data_bytes(40), np.uint8)
    records.pack(SEGMENT, np.arange(40), rows, np.arange(40), data)
    wrong, found = take(records, data, SEGMENT | np.arange(40), np.arange(40))
    assert wrong == -1
    assert np.array_equal(found.rows_nb, rows)


def test_copying_releases_the_interpreter() -> None:
    for kernel in (kernels.pack, kernels.unpack, kernels.unpack_memory, kernels.find_in_memory):
        assert kernel.targetoptions["nogil"]
