"""What every backend says of how far a step moved its rows.

Inherit ``ChangeContract`` beside ``BackendContract``, which brings the fixtures. The oracle is ``relative_change`` here, in numpy, a row
at a time.
"""

from __future__ import annotations

import numpy as np
import pytest

from cuda.backend import Backend
from tests.contracts.narrow_rows import VERSION, NarrowRowsContract, Rounding
from tests.cuda import cases, reference
from tests.cuda.cases import Random
from tests.cuda.reference import Floats


def relative_change(before: Floats, after: Floats) -> np.float32:
    with np.errstate(all="ignore"):
        moved = before - after
        square = reference.dot(moved, moved)
        longer = max(reference.dot(before, before), reference.dot(after, after))
        if square == 0:
            return np.float32(0)
        finite = bool(np.isfinite(square) and np.isfinite(longer))
        return np.float32(np.sqrt(square) / np.sqrt(longer)) if finite else np.float32(np.inf)


class ChangeContract(NarrowRowsContract):
    @pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
    def test_the_relative_change_of_rows_is_the_reference_to_the_last_bit(
        self, backend: Backend, random: Random, rounding: Rounding
    ) -> None:
        tables, made = self.tables(rounding), self.batch(random, 40)
        plan = self.fill(backend, random, tables, made)
        for version in (VERSION, VERSION + 1):  # memory of the first is used again
            before = self.weights(backend, plan, tables)
            kept_ud = backend.keep_weights(plan)
            for kept, weights in zip(kept_ud, before.values(), strict=True):
                assert cases.same_bits(kept[: len(weights)], weights)
            backend.update(plan, cases.matrices(cases.gradients(random, made, [3])), [t.rule for t in tables], version)
            changes_u = backend.relative_change(plan, kept_ud)
            after = self.weights(backend, plan, tables)
            expected = np.array([relative_change(before[pair], after[pair]) for pair in before], np.float32)
            assert cases.same_bits(changes_u, expected)
            assert (changes_u > 0).sum() > plan.unique.count / 2
            assert (changes_u <= 2).all()

    def test_rows_that_left_zeros_or_numbers_or_stayed_have_the_change_that_is_promised(
        self, backend: Backend, random: Random
    ) -> None:
        dim, count = 20, 6
        tables = cases.tables([dim])
        made = cases.one_id_a_bag(cases.batch(random, [dim], [0], [0], count), list(range(count)))
        backend.open([table.spec for table in tables], 64)
        plan = cases.fill(backend, random, made, np.arange(64, dtype=np.int32))
        before, after = np.ones((count, dim), np.float32), np.ones((count, dim), np.float32)
        before[1], after[2, 3], after[3], before[4], after[4] = 0, np.nan, -1, 1e-30, -1e-30
        after[5] = 1e30

        def write(rows_ud: Floats) -> None:
            packed = np.zeros((count, backend.row_bytes // 4), np.float32)
            packed[:, :dim] = rows_ud
            backend.write_rows(plan.slots_u, packed.view(np.uint8), np.full(count, 7))

        write(before)
        kept_ud = backend.keep_weights(plan)
        write(after)
        changes = dict(zip(plan.unique.ids_u.tolist(), backend.relative_change(plan, kept_ud).tolist(), strict=True))
        assert changes == {0: 0.0, 1: 1.0, 2: np.inf, 3: 2.0, 4: 0.0, 5: np.inf}
