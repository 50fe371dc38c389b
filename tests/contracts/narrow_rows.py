"""What every backend keeps of rows with numbers of 16 bits, limits of gradients and rows, and gradients that are no numbers.

Inherit ``NarrowRowsContract`` beside ``BackendContract``, which brings the fixtures. The oracle is ``tests.cuda.narrow_reference``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from cuda.backend import Backend, UpdateRule
from cuda.plan import MEAN, NONE, SUM, BatchIds, SlotPlan
from pipeline.optim import (
    AdamOptions,
    LambOptions,
    OptimizerOptions,
    PartialRowwiseAdamOptions,
    RowwiseAdagradOptions,
    SgdOptions,
    layout_of,
    rule_of,
)
from pipeline.rows.codec import find_codec
from pipeline.rows.codec.formulas import KINDS
from pipeline.rows.digest import rows_digest
from pipeline.rows.room import RowRoom
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.rows.version import MAX_STEP
from tests.cuda import cases, narrow_reference, reference
from tests.cuda.cases import Random, Table
from tests.cuda.reference import Floats, Pair

NUM_SLOTS = 4096
Rounding = Literal["stochastic", "nearest"]
VERSION = (3 << 40) | (5 << 32) | 17
KEPT: tuple[tuple[OptimizerOptions, int, str, str], ...] = (
    (SgdOptions(lr=0.3), 4, "float16", "float32"),
    (RowwiseAdagradOptions(lr=0.1, max_norm=1.5), 20, "bfloat16", "float32"),
    (AdamOptions(lr=0.02, weight_decay=0.05), 64, "float16", "bfloat16"),
    (AdamOptions(rowwise_bias_correction=True), 36, "bfloat16", "bfloat16"),
    (PartialRowwiseAdamOptions(), 132, "float32", "bfloat16"),
    (LambOptions(lr=0.03), 12, "float16", "float32"),
    (RowwiseAdagradOptions(weight_decay=0.1, decay="l2"), 256, "float16", "float32"),
    (SgdOptions(), 8, "float32", "float32"),
)
"""(optimizer, dim, dtype of weights, of states)"""


class NarrowRowsContract:
    def tables(self, rounding: Rounding) -> list[Table]:
        return [
            Table(
                TableSpec(f"t{number}", layout_of(options, dim, weights, states), Initializer(), number),
                replace(rule_of(options), rounding=rounding),
            )
            for number, (options, dim, weights, states) in enumerate(KEPT)
        ]

    def batch(self, random: Random, num_samples: int, weighted: bool = False) -> BatchIds:
        every = list(range(len(KEPT)))
        poolings = [SUM, MEAN, NONE, SUM, MEAN, SUM, MEAN, SUM, MEAN, SUM, NONE, MEAN, SUM, MEAN, SUM, NONE]
        dims = [kept[1] for kept in KEPT]
        return cases.batch(random, dims, every + every, poolings, num_samples, spread=6, weighted=weighted)

    def fill(self, backend: Backend, random: Random, tables: list[Table], made: BatchIds) -> SlotPlan:
        """Resident rows of random numbers that their columns can hold."""
        backend.open([table.spec for table in tables], NUM_SLOTS)
        slots = random.permutation(NUM_SLOTS).astype(np.int32)
        plan = cases.fill(backend, random, made, slots)
        rows_ub, versions_u = backend.read_rows(plan.slots_u)
        for row_b, table in zip(rows_ub, plan.unique.tables_u.tolist(), strict=True):
            for column in tables[table].spec.layout.columns:
                values = np.abs(random.standard_normal(column.width)).astype(np.float32)
                values *= random.choice([-1.0, 1.0], column.width) if column.role == "weight" else 1.0
                bits = (
                    values
                    if column.dtype == "float32"
                    else narrow_reference.round_to(values.astype(np.float32), column.dtype, None)
                )
                start = tables[table].spec.layout.offsets[column.name]
                row_b[start : start + column.nbytes] = bits.view(np.uint8)
        backend.write_rows(plan.slots_u, rows_ub, versions_u)
        return plan

    def weights(self, backend: Backend, plan: SlotPlan, tables: list[Table]) -> dict[Pair, Floats]:
        """Widened, as the reference of lookups takes rows."""
        pairs = zip(plan.unique.tables_u.tolist(), plan.unique.ids_u.tolist(), strict=True)
        rows = {}
        for (table, row_id), row_b in zip(pairs, backend.read_rows(plan.slots_u)[0], strict=True):
            dtype, dim = tables[table].spec.layout.weight_dtype, tables[table].spec.dim
            stored = row_b[: dim * (4 if dtype == "float32" else 2)].copy()
            rows[table, row_id] = (
                stored.view(np.float32) if dtype == "float32" else narrow_reference.widen(stored.view(np.uint16), dtype)
            )
        return rows

    @pytest.mark.parametrize("weighted", [False, True])
    def test_narrow_rows_are_looked_up_as_float32(self, backend: Backend, random: Random, weighted: bool) -> None:
        tables, made = self.tables("stochastic"), self.batch(random, 23, weighted)
        plan = self.fill(backend, random, tables, made)
        outs = cases.poisoned_outputs(made)
        backend.gather_pool(plan, [matrix for matrix in cases.matrices(outs) if matrix is not None])
        rows = self.weights(backend, plan, tables)
        for out, expected in zip(outs, reference.gather(made, rows), strict=True):
            assert cases.same_bits(out, expected)
        grads = cases.gradients(random, made, [2])
        found = backend.weight_gradients(plan, cases.matrices(grads))
        assert cases.same_bits(found, reference.weight_gradients(made, rows, grads))

    @pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
    def test_narrow_rows_are_updated_in_float32_and_rounded(
        self, backend: Backend, random: Random, rounding: Rounding
    ) -> None:
        tables, made = self.tables(rounding), self.batch(random, 21)
        plan = self.fill(backend, random, tables, made)
        for version in (VERSION, VERSION + 1):
            before_ub, _ = backend.read_rows(plan.slots_u)
            grads = cases.gradients(random, made, [3])
            bad = backend.update(plan, cases.matrices(grads), [table.rule for table in tables], version)
            after_ub, _ = backend.read_rows(plan.slots_u)
            sums = reference.sum_gradients(plan.batch, grads)
            for u, ((table, row_id), gradient) in enumerate(sums.items()):
                rule, spec = tables[table].rule, tables[table].spec
                expected = narrow_reference.update_row(rule, spec, before_ub[u], gradient, row_id, version & MAX_STEP)
                np.testing.assert_array_equal(after_ub[u], expected, f"table {table} id {row_id}")
            assert not bad.any()
        assert (backend.read_versions(plan.slots_u) == VERSION + 1).all()

    @pytest.mark.parametrize("codec", list(KINDS))
    def test_narrow_rows_are_encoded_from_float32(self, backend: Backend, random: Random, codec: str) -> None:
        tables, made = self.tables("stochastic"), self.batch(random, 12)
        plan = self.fill(backend, random, tables, made)
        rows, unique = self.weights(backend, plan, tables), plan.unique
        encoder, expected, digest = find_codec(codec), list[bytes](), 0
        counts_t = np.diff(unique.table_start_t)
        for table, (start, end) in enumerate(zip(unique.table_start_t, unique.table_start_t[1:], strict=False)):
            ids = unique.ids_u[start:end]
            weights = np.array([rows[table, int(row_id)] for row_id in ids], np.float32)
            if len(ids):
                encoded = encoder.encode(weights.reshape(len(ids), -1))
                expected.append(encoded.tobytes())
                decoded = encoder.decode(encoded, weights.shape[1])
                versions = np.zeros(len(ids), np.int64)
                digest += rows_digest(tables[table].spec.name, ids, decoded.view(np.uint8), versions)
                np.testing.assert_array_equal(backend.encode_rows(plan.slots_u[start:end], codec, table), encoded)
        size = sum(map(len, expected))
        room = RowRoom(np.zeros(16 * unique.count + size, np.uint8), 0, 16 * unique.count, 8 * unique.count)
        found, _ = backend.encode_distinct(plan.slots_u, counts_t, [codec] * len(tables), (-1, 1), room)
        assert room.content_b[16 * unique.count :].tobytes() == b"".join(expected)
        assert found == digest % 2**64

    def test_gradients_are_limited_before_anything_else(self, backend: Backend, random: Random) -> None:
        limits = [0.0, 0.5]
        dims = [20, 16]
        tables = [
            replace(table, rule=replace(table.rule, max_gradient=limit))
            for table, limit in zip(cases.tables(dims), limits, strict=True)
        ]
        made = cases.batch(random, dims, [0, 1, 1], [SUM, MEAN, NONE], 50, longest=3, spread=9, weighted=True)
        backend.open([table.spec for table in tables], NUM_SLOTS)
        plan = cases.fill(backend, random, made, np.arange(NUM_SLOTS, dtype=np.int32))
        grads = cases.gradients(random, made)
        limited = [grads[0], *(np.clip(grad, -0.5, 0.5) for grad in grads[1:] if grad is not None)]
        assert any((np.abs(grad) > 0.5).any() for grad in grads[1:] if grad is not None)
        rows_ub, versions_u = backend.read_rows(plan.slots_u)
        results = []
        for given, rules in ((grads, [table.rule for table in tables]), (limited, _unlimited(tables))):
            backend.write_rows(plan.slots_u, rows_ub, versions_u)
            backend.update(plan, cases.matrices(given), rules, VERSION)
            results.append(backend.read_rows(plan.slots_u)[0])
        np.testing.assert_array_equal(results[0], results[1])

    @pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
    def test_a_row_whose_gradient_is_no_number_keeps_its_bits(
        self, backend: Backend, random: Random, poison: float
    ) -> None:
        tables, made = self.tables("stochastic"), self.batch(random, 15)
        plan = self.fill(backend, random, tables, made)
        grads = cases.gradients(random, made)
        for grad in grads:
            if grad is not None and grad.size:
                grad[random.integers(grad.shape[0]), random.integers(grad.shape[1])] = poison
        before_ub, _ = backend.read_rows(plan.slots_u)
        bad_t = backend.update(plan, cases.matrices(grads), [table.rule for table in tables], VERSION)
        after_ub, _ = backend.read_rows(plan.slots_u)
        expected_t = np.zeros(len(tables), np.int64)
        with np.errstate(invalid="ignore"):
            sums = reference.sum_gradients(plan.batch, grads)
        for u, ((table, _), gradient) in enumerate(sums.items()):
            if not np.isfinite(gradient).all():
                expected_t[table] += 1
                np.testing.assert_array_equal(after_ub[u], before_ub[u])
            else:
                assert np.isfinite(self.weights(backend, plan, tables)[table, int(plan.unique.ids_u[u])]).all()
        np.testing.assert_array_equal(bad_t, expected_t)
        assert expected_t.sum() > 0
        assert (backend.read_versions(plan.slots_u) == VERSION).all()


def _unlimited(tables: list[Table]) -> list[UpdateRule]:
    return [replace(table.rule, max_gradient=0.0) for table in tables]
