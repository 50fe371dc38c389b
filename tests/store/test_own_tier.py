"""The tier of a user's own that the tests of whole runs use is one."""

from __future__ import annotations

from tests.contracts.tier import TierContract
from tests.e2e.own_tier import OwnTier


class TestOwnTier(TierContract):
    test_a_reader_sees_each_row_whole_old_or_new = None  # type: ignore[assignment]  # row by row, it takes long
    test_many_rows_in_many_puts = None  # type: ignore[assignment]

    def make(self) -> OwnTier:
        return OwnTier()
