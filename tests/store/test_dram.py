"""The DRAM tier."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.store import DramTier, Tier, TierFull
from pipeline.store.dram import INDEX_BYTES
from pipeline.store.row_blocks import WORD_BYTES
from tests.contracts.tier import SPECS, MovesRowsContract, fresh_rows, ids_of, somewhere


class TestDramTier(MovesRowsContract):
    def make(self) -> Tier:
        return DramTier()


class TestBoundedDramTier(MovesRowsContract):
    def make(self) -> Tier:
        return DramTier(max_bytes=1 << 30)


def bytes_of(rows: int) -> int:
    return rows * (SPECS[0].layout.row_bytes + WORD_BYTES + INDEX_BYTES)


def test_a_full_tier_refuses_new_rows_and_loses_none() -> None:
    random, tier = np.random.default_rng(), DramTier(max_bytes=bytes_of(3))
    tier.open(SPECS)
    rows = fresh_rows(random, SPECS[0], 3)
    tier.put("users", ids_of([1, 2, 3]), rows, ids_of([1, 1, 1]))
    with pytest.raises(TierFull, match=r"cannot take 1 new rows .* of table 'users': set store.dram_bytes to at least"):
        tier.put("users", ids_of([3, 4]), fresh_rows(random, SPECS[0], 2), ids_of([2, 2]))
    got = tier.get("users", ids_of([1, 2, 3, 4]))
    assert np.array_equal(got.rows_nb[:3], rows)
    assert got.versions_n.tolist() == [1, 1, 1, 0]
    assert tier.count("users") == 3


def test_a_full_tier_takes_none_of_the_rows_of_a_call_that_does_not_fit() -> None:
    random, tier = np.random.default_rng(), DramTier(max_bytes=bytes_of(3))
    tier.open(SPECS)
    tier.put("users", ids_of([1]), fresh_rows(random, SPECS[0], 1), ids_of([1]))
    before = tier.get("users", ids_of([1])).rows_nb
    _, at = somewhere(random, 4)
    with pytest.raises(TierFull, match=r"cannot take 3 new rows .* of table 'users, items'"):
        tier.put_rows(np.array([0, 0, 1, 1], np.int32), ids_of([1, 2, 3, 4]), at)
    assert np.array_equal(tier.get("users", ids_of([1])).rows_nb, before)
    assert tier.count("users") == 1
    assert tier.count("items") == 0
    assert tier.held_bytes == bytes_of(1)


def test_a_full_tier_still_replaces_rows_and_takes_new_ones_after_a_delete() -> None:
    random, tier = np.random.default_rng(), DramTier(max_bytes=bytes_of(2))
    tier.open(SPECS)
    tier.put("users", ids_of([1, 2]), fresh_rows(random, SPECS[0], 2), ids_of([1, 1]))
    rows = fresh_rows(random, SPECS[0], 2)
    tier.put("users", ids_of([1, 2]), rows, ids_of([2, 2]))
    tier.delete("users", ids_of([1]))
    tier.put("users", ids_of([9]), rows[:1], ids_of([3]))
    got = tier.get("users", ids_of([2, 9]))
    assert np.array_equal(got.rows_nb, rows[[1, 0]])
    assert tier.held_bytes == bytes_of(2)


def test_rows_on_an_odd_address_are_taken() -> None:
    tier, width = DramTier(), SPECS[0].layout.row_bytes
    tier.open(SPECS)
    raw = np.random.default_rng().integers(0, 256, 3 * width + 1, dtype=np.uint8)
    rows = raw[1:].reshape(3, width)
    tier.put("users", ids_of([1, 2, 3]), rows, ids_of([1, 2, 3]))
    assert np.array_equal(tier.get("users", ids_of([3, 1])).rows_nb, rows[[2, 0]])


def test_growing_moves_no_row() -> None:
    tier = DramTier()
    tier.open(SPECS)
    for start in range(0, 300_000, 60_000):
        ids = np.arange(start, start + 60_000, dtype=np.int64)
        tier.put("users", ids, SPECS[0].layout.empty(60_000), ids)
        if not start:
            first = tier._tables["users"]._bases_c[0]
    assert tier._tables["users"]._bases_c[0] == first
    assert len(tier._tables["users"]._bases_c) == 5
