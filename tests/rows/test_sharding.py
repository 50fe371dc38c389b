"""Rows go to shards by a hash that any language has: every id to one shard, and nothing lost on the way."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.rows.sharding import count_elsewhere, split_by_shard

INT64S = arrays(np.int64, st.integers(0, 200), elements=st.integers(-(2**63), 2**63 - 1))


def shard_of(table: str, row_id: int, num_shards: int) -> int:
    """The formula of the module docstring, by a library."""
    key = xxhash.xxh64_intdigest(table.encode())
    return xxhash.xxh64_intdigest(struct.pack("<q", row_id), seed=key) % num_shards


def test_the_example_of_the_docstring() -> None:
    key = xxhash.xxh64_intdigest(b"users")
    assert xxhash.xxh64_intdigest(struct.pack("<q", -1), seed=key) == 0x7247854FB372B662
    assert [len(ids) for ids in split_by_shard("users", [-1], 4)] == [0, 0, 1, 0]


@given(ids_n=INT64S, num_shards=st.sampled_from([1, 2, 3, 8, 257]), table=st.sampled_from(["users", "a.b-c_1"]))
def test_each_id_goes_to_the_shard_of_the_formula_in_order(ids_n: np.ndarray, num_shards: int, table: str) -> None:
    parts = split_by_shard(table, ids_n, num_shards)
    expected = [[i for i in ids_n.tolist() if shard_of(table, i, num_shards) == k] for k in range(num_shards)]
    assert [part.tolist() for part in parts] == expected
    for k, part in enumerate(parts):
        assert count_elsewhere(table, part, num_shards, k) == 0
        assert count_elsewhere(table, ids_n, num_shards, k) == len(ids_n) - len(part)


def test_neighbouring_ids_are_spread_evenly_and_tables_apart() -> None:
    ids_n = np.arange(100_000)
    parts = split_by_shard("items", ids_n, 4)
    assert all(abs(len(part) - 25_000) < 1_000 for part in parts)
    assert not np.array_equal(parts[0], split_by_shard("users", ids_n, 4)[0])


def test_what_is_no_id_is_refused() -> None:
    with pytest.raises(TypeError):
        split_by_shard("items", [0.5], 2)
    with pytest.raises(ValueError, match="one-dimensional"):
        split_by_shard("items", np.zeros((2, 2), dtype=np.int64), 2)
