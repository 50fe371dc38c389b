"""What every backend keeps. Inherit ``BackendContract`` and provide the fixtures ``backend`` and ``make``; nothing else is needed.

The oracle is ``tests.cuda.reference``; answers must equal it bit for bit.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from cuda.backend import Backend
from cuda.plan import MEAN, NONE, SUM, BatchIds, Int64s, SlotPlan
from pipeline.rows.codec import find_codec
from pipeline.rows.codec.formulas import KINDS
from pipeline.rows.digest import rows_digest
from pipeline.rows.room import RowRoom
from pipeline.rows.version import MAX_STEP
from pipeline.store.dynamic import only
from tests.cuda import cases, reference
from tests.cuda.cases import Random, Table
from tests.cuda.reference import Floats
from tests.cuda.rule_reference import apply_rule

NUM_SLOTS = 4096
VERSION = (3 << 40) | 17


@pytest.fixture
def random() -> Random:
    return np.random.default_rng()


MIXED = ("int4", "int8", "bf16", "fp32")
"""Codecs of four tables."""


class BackendContract:
    """``make(threads)`` gives an unopened backend; ``backend`` is an unopened one as well. Both are closed by the fixtures."""

    def open(self, backend: Backend, tables: list[Table]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        """Open with NUM_SLOTS slots, and give them in random order."""
        backend.open([table.spec for table in tables], NUM_SLOTS)
        return np.random.default_rng().permutation(NUM_SLOTS).astype(np.int32)

    # ids

    @pytest.mark.parametrize("num_samples", [0, 1, 2, 33])
    def test_distinct_ids_are_found_in_order_of_first_occurrence(
        self, backend: Backend, random: Random, num_samples: int
    ) -> None:
        for _ in range(5):
            _, made = cases.mixed(random, num_samples)
            reference.check_unique(made, backend.deduplicate(made))

    @pytest.mark.parametrize("spread", [1, 50, 10**6])
    def test_one_table_with_many_ids_is_deduplicated_like_any_other(
        self, backend: Backend, random: Random, spread: int
    ) -> None:
        made = cases.batch(random, [4, 4], [1, 0, 1], [SUM, SUM, NONE], 2500, longest=8, spread=spread)
        reference.check_unique(made, backend.deduplicate(made))

    def test_results_of_deduplication_outlive_later_calls(self, backend: Backend, random: Random) -> None:
        batches = [cases.mixed(random, 20)[1] for _ in range(8)]
        results = [backend.deduplicate(made) for made in batches]
        for made, unique in zip(batches, results, strict=True):
            reference.check_unique(made, unique)

    def test_pairs_are_located_until_their_slot_is_forgotten_or_given_away(
        self, backend: Backend, random: Random
    ) -> None:
        tables, made = cases.mixed(random, 40)
        slots = self.open(backend, tables)
        plan = cases.fill(backend, random, made, slots)
        unique, count = plan.unique, plan.unique.count
        np.testing.assert_array_equal(plan.slots_u, slots[:count])
        bound = backend.pairs(slots[: count + 1])
        np.testing.assert_array_equal(bound[0][:count], unique.tables_u)
        np.testing.assert_array_equal(bound[1][:count], unique.ids_u)
        assert bound[0][count] == -1

        backend.forget(slots[0:count:2])
        expected = slots[:count].copy()
        expected[0::2] = -1
        np.testing.assert_array_equal(backend.locate(unique.tables_u, unique.ids_u), expected)

        backend.admit(slots[1:2], unique.tables_u[:1], unique.ids_u[:1])
        expected[:2] = slots[1], -1
        np.testing.assert_array_equal(backend.locate(unique.tables_u, unique.ids_u), expected)

    # rows

    def test_rows_and_versions_come_back_as_written(self, backend: Backend, random: Random) -> None:
        slots = self.open(backend, cases.mixed(random)[0])[:500]
        rows = random.integers(0, 256, (500, backend.row_bytes), dtype=np.uint8)
        versions = random.integers(0, 2**62, 500)
        backend.write_rows(slots, rows, versions)
        order = random.permutation(500)
        read_rows, read_versions = backend.read_rows(slots[order])
        np.testing.assert_array_equal(read_rows, rows[order])
        np.testing.assert_array_equal(read_versions, versions[order])
        np.testing.assert_array_equal(backend.read_versions(slots[order]), versions[order])

    def test_rows_are_read_into_arrays_that_are_there(self, backend: Backend, random: Random) -> None:
        """In two parts, the first bytes of each and those behind them, if any; of slot -1 nothing."""
        slots = self.open(backend, cases.mixed(random)[0])[:500]
        rows = random.integers(0, 256, (500, backend.row_bytes), dtype=np.uint8)
        versions = random.integers(0, 2**62, 500)
        backend.write_rows(slots, rows, versions)
        for head, tail in ((48, 0), (36, 12), (4, backend.row_bytes - 4)):
            order = random.integers(-1, 500, 700)
            asked = np.where(order < 0, -1, slots[order]).astype(np.int32)
            head_nb, tail_nb = np.full((700, head), 7, np.uint8), np.full((700, tail), 7, np.uint8)
            found = np.full(700, -3)
            backend.read_rows_into(asked, head_nb, tail_nb, found)
            expected = np.where(order[:, None] < 0, 7, rows[order, : head + tail])
            np.testing.assert_array_equal(np.concatenate([head_nb, tail_nb], axis=1), expected)
            np.testing.assert_array_equal(found, np.where(order < 0, -3, versions[order]))

    def test_rows_lie_where_the_backend_says(self, backend: Backend, random: Random) -> None:
        """Where it says so at all: a device's memory cannot be reached so."""
        slots = self.open(backend, cases.mixed(random)[0])[:500]
        rows = random.integers(0, 256, (500, backend.row_bytes), dtype=np.uint8)
        versions = random.integers(0, 2**62, 500)
        backend.write_rows(slots, rows, versions)
        places = backend.row_places(slots)
        if places is not None:
            for n in random.permutation(500)[:50]:
                assert ctypes.string_at(int(places.rows_m[n]), backend.row_bytes) == rows[n].tobytes()
                assert ctypes.string_at(int(places.versions_m[n]), 8) == versions[n : n + 1].tobytes()

    def test_narrow_rows_leave_the_rest_of_a_slot_alone(self, backend: Backend, random: Random) -> None:
        slots = self.open(backend, cases.mixed(random)[0])[:40]
        wide = random.integers(0, 256, (40, backend.row_bytes), dtype=np.uint8)
        narrow = random.integers(0, 256, (40, 48), dtype=np.uint8)
        backend.write_rows(slots, wide, np.zeros(40, np.int64))
        backend.write_rows(slots, narrow, np.ones(40, np.int64))
        wide[:, :48] = narrow
        np.testing.assert_array_equal(backend.read_rows(slots)[0], wide)

    # meta columns

    @pytest.mark.parametrize("bringing", [[0, 3, 6], [6, 0], [3], [0]])
    @pytest.mark.parametrize(("dtype", "width"), [("int64", 2), ("uint8", 3), ("int16", 1)])
    @pytest.mark.parametrize("some", [False, True])
    def test_of_the_values_of_a_row_the_last_one_is_found(
        self, backend: Backend, random: Random, bringing: list[int], dtype: str, width: int, some: bool
    ) -> None:
        """In (feature, position) order, whichever features bring values; ``some``: of pairs, as under an admission."""
        for num_samples in (0, 1, 30):
            _, made = cases.mixed(random, num_samples)
            meta = cases.meta(random, made, 2, dtype, width, bringing)
            unique = backend.deduplicate(made)
            if some:
                kept_u = random.random(unique.count) < 0.5
                unique = only(unique, kept_u, np.diff(unique.occurrence_start_u))
            rows, values = backend.last_values(made, unique, meta)
            pairs = list(zip(unique.tables_u.tolist(), unique.ids_u.tolist(), strict=True))
            expected = {pair: kept for pair, kept in reference.last_values(made, meta).items() if pair in pairs}
            assert (np.diff(rows) > 0).all()
            assert {pairs[u]: line.tobytes() for u, line in zip(rows, values, strict=True)} == expected

    @pytest.mark.parametrize(("start", "width"), [(16, 8), (5, 3), (0, 48)])
    def test_a_part_of_rows_is_written_and_nothing_else(
        self, backend: Backend, random: Random, start: int, width: int
    ) -> None:
        slots = self.open(backend, cases.mixed(random)[0])[:500]
        rows = random.integers(0, 256, (500, backend.row_bytes), dtype=np.uint8)
        versions = random.integers(0, 2**62, 500)
        backend.write_rows(slots, rows, versions)
        chosen = random.permutation(500)[:300]
        values = random.integers(0, 256, (300, width), dtype=np.uint8)
        backend.write_part(slots[chosen], start, values)
        rows[chosen, start : start + width] = values
        found, found_versions = backend.read_rows(slots)
        np.testing.assert_array_equal(found, rows)
        np.testing.assert_array_equal(found_versions, versions)

    @pytest.mark.parametrize("codec", list(KINDS))
    def test_encoded_rows_are_the_codec_applied_to_the_weights(
        self, backend: Backend, random: Random, codec: str
    ) -> None:
        tables, made = cases.mixed(random, 30)
        plan = cases.fill(backend, random, made, self.open(backend, tables))
        weights = backend.read_rows(plan.slots_u)[0][:, :16].view(np.float32)
        encoded = backend.encode_rows(plan.slots_u, codec, 0)
        np.testing.assert_array_equal(encoded, find_codec(codec).encode(weights))

    # cuts

    def groups(self, random: Random, plan: SlotPlan, count: int) -> tuple[Int64s, Int64s]:
        """Some of a plan's pairs, ``count`` times, as ``find_distinct`` takes them."""
        unique, ids, starts = plan.unique, list[Int64s](), list[Int64s]()
        for _ in range(count):
            kept = random.random(unique.count) < 0.6
            starts.append(sum(len(one) for one in ids) + np.searchsorted(np.flatnonzero(kept), unique.table_start_t))
            ids.append(unique.ids_u[kept])
        return np.concatenate(ids), np.array(starts, np.int64)

    @pytest.mark.parametrize("num_groups", [1, 2, 5])
    def test_distinct_pairs_of_several_groups_are_found_once_in_order(
        self, backend: Backend, random: Random, num_groups: int
    ) -> None:
        tables, made = cases.mixed(random, 30)
        plan = cases.fill(backend, random, made, self.open(backend, tables))
        for _ in range(3):
            ids, starts = self.groups(random, plan, num_groups)
            expected = [
                dict.fromkeys(number for first, last in starts[:, t : t + 2] for number in ids[first:last].tolist())
                for t in range(len(tables))
            ]
            found = backend.find_distinct(ids, starts)
            assert found is not None
            slots, counts = found
            assert counts.tolist() == [len(numbers) for numbers in expected]
            bound_tables, bound_ids = backend.pairs(slots)
            assert bound_ids.tolist() == [number for numbers in expected for number in numbers]
            assert bound_tables.tolist() == [t for t, numbers in enumerate(expected) for _ in numbers]

    def test_a_pair_that_is_not_resident_is_not_found(self, backend: Backend, random: Random) -> None:
        tables, made = cases.mixed(random, 30)
        plan = cases.fill(backend, random, made, self.open(backend, tables))
        backend.forget(plan.slots_u[-1:])
        assert backend.find_distinct(plan.unique.ids_u, plan.unique.table_start_t[None]) is None

    @pytest.mark.parametrize(
        "codecs", [*((name,) * 4 for name in KINDS), MIXED, MIXED[::-1], ("fp16", "fp32", "fp32", "fp16")]
    )
    @pytest.mark.parametrize("shift", [0, 3])
    def test_a_cut_is_encoded_as_its_rows_are_one_by_one(
        self, backend: Backend, random: Random, codecs: tuple[str, ...], shift: int
    ) -> None:
        tables, made = cases.mixed(random, 30)
        plan = cases.fill(backend, random, made, self.open(backend, tables))
        rows = random.integers(0, 256, (plan.unique.count, backend.row_bytes), dtype=np.uint8)  # any bits, NaN too
        versions = VERSION - random.integers(0, 4, plan.unique.count)
        backend.write_rows(plan.slots_u, rows, versions)
        starts, encoded, digest = plan.unique.table_start_t, b"", 0
        for t, (table, name) in enumerate(zip(tables, codecs, strict=True)):
            own, codec, dim = slice(starts[t], starts[t + 1]), find_codec(name), table.spec.dim
            packed = codec.encode(rows[own, : 4 * dim].view(np.float32))
            decoded = codec.decode(packed, dim).view(np.uint8)
            digest += rows_digest(table.spec.name, plan.unique.ids_u[own], decoded, versions[own])
            encoded += packed.tobytes()
        parts = [plan.unique.ids_u.tobytes(), encoded, versions.tobytes()]
        room = RowRoom(np.full(len(b"".join(parts)) + 4 * shift, 0xEE, np.uint8), shift, 0, 0)
        room = replace(room, rows_at=2 * shift + len(parts[0]), versions_at=3 * shift + len(parts[0]) + len(encoded))
        low = VERSION - 2
        found = backend.encode_distinct(plan.slots_u, np.diff(starts), codecs, (low, VERSION), room)
        assert found == (digest & (2**64 - 1), int((versions <= low).sum()))
        gap = b"\xee" * shift
        assert room.content_b.tobytes() == gap + gap.join(parts) + gap

    # forward

    @pytest.mark.parametrize("num_samples", [0, 1, 9, 40])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_gathered_rows_are_the_reference_to_the_last_bit(
        self, backend: Backend, random: Random, num_samples: int, weighted: bool
    ) -> None:
        tables, made = cases.mixed(random, num_samples, weighted)
        plan = cases.fill(backend, random, made, self.open(backend, tables))
        self.check_gather(backend, plan)

    def test_one_giant_bag_is_pooled_in_order(self, backend: Backend, random: Random) -> None:
        dims = [20]
        tables = cases.tables(dims)
        made = cases.batch(random, dims, [0, 0], [MEAN, SUM], 1, longest=3000, spread=200)
        self.check_gather(backend, cases.fill(backend, random, made, self.open(backend, tables)))

    def check_gather(self, backend: Backend, plan: SlotPlan) -> None:
        outs = cases.poisoned_outputs(plan.batch)
        backend.gather_pool(plan, [matrix for matrix in cases.matrices(outs) if matrix is not None])
        for out, expected in zip(outs, reference.gather(plan.batch, cases.rows_of(backend, plan)), strict=True):
            assert cases.same_bits(out, expected)
            assert out.base is None or np.isnan(out.base[:, out.shape[1] :]).all(), "wrote outside the matrix"

    # backward

    @pytest.mark.parametrize("without", [[], [3], [0, 3, 6]])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_summed_gradients_are_the_reference_to_the_last_bit(
        self, backend: Backend, random: Random, weighted: bool, without: list[int]
    ) -> None:
        tables, made = cases.mixed(random, 21, weighted)
        plan = cases.fill(backend, random, made, self.open(backend, tables))
        grads = cases.gradients(random, made, without)
        sums = backend.sum_gradients(plan, cases.matrices(grads))
        assert sums.shape == (plan.unique.count, 1024)
        for found, expected in zip(sums, reference.sum_gradients(made, grads).values(), strict=True):
            assert cases.same_bits(found[: expected.shape[0]], expected)
            assert not found[expected.shape[0] :].any()

    @pytest.mark.parametrize("weighted", [False, True])
    def test_a_first_gradient_is_copied_so_negative_zero_survives(
        self, backend: Backend, random: Random, weighted: bool
    ) -> None:
        dims = [8]
        made = cases.batch(random, dims, [0], [SUM], 60, longest=1, spread=10)
        made = replace(made, weights_n=np.ones_like(made.ids_n, np.float32) if weighted else None)
        plan = cases.fill(backend, random, made, self.open(backend, cases.tables(dims)))
        sums = backend.sum_gradients(plan, cases.matrices([np.full((60, 8), -0.0, np.float32)]))
        assert (np.diff(plan.unique.occurrence_start_u) > 1).any()
        assert np.signbit(sums).all()

    @pytest.mark.parametrize("without", [[], [0, 3]])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_gradients_of_weights_are_the_reference_to_the_last_bit(
        self, backend: Backend, random: Random, weighted: bool, without: list[int]
    ) -> None:
        tables, made = cases.mixed(random, 21, weighted)
        plan = cases.fill(backend, random, made, self.open(backend, tables))
        grads = cases.gradients(random, made, without)
        found = backend.weight_gradients(plan, cases.matrices(grads))
        assert cases.same_bits(found, reference.weight_gradients(made, cases.rows_of(backend, plan), grads))

    # update

    @pytest.mark.parametrize("num_samples", [0, 1, 40])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_updated_rows_are_the_reference_to_the_last_bit(
        self, backend: Backend, random: Random, num_samples: int, weighted: bool
    ) -> None:
        tables, made = cases.mixed(random, num_samples, weighted)
        plan = cases.fill(backend, random, made, self.open(backend, tables))
        for version in (VERSION, VERSION + 1):
            self.check_update(backend, plan, tables, cases.gradients(random, made, [3]), version)

    def test_every_rule_is_the_reference_to_the_last_bit(self, backend: Backend, random: Random) -> None:
        dims = [(4, 20, 64, 132)[number % 4] for number in range(len(cases.OPTIMIZERS))]
        tables = cases.tables(dims, cases.OPTIMIZERS)
        every = range(len(dims))
        made = cases.batch(random, dims, [*every, *every], [SUM] * len(dims) + [MEAN] * len(dims), 30, spread=5)
        plan = cases.fill(backend, random, made, self.open(backend, tables))
        for version in (VERSION, VERSION + 1, VERSION + 2):
            self.check_update(backend, plan, tables, cases.gradients(random, made, [3]), version)

    @pytest.mark.parametrize("weighted", [False, True])
    def test_only_the_rows_asked_for_are_updated_where_other_ids_of_the_batch_have_none(
        self, backend: Backend, random: Random, weighted: bool
    ) -> None:
        """As under an admission: the batch has more ids than the plan has occurrences."""
        tables, made = cases.mixed(random, 40, weighted)
        whole = cases.fill(backend, random, made, self.open(backend, tables))
        own_u = random.random(whole.unique.count) < 0.5
        own = only(whole.unique, own_u, np.diff(whole.unique.occurrence_start_u))
        plan = SlotPlan(made, own, whole.slots_u[own_u])
        assert 0 < own.occurrences_n.shape[0] < made.ids_n.shape[0]
        grads = cases.gradients(random, made, [3])
        sums = {
            pair: gradient
            for (pair, gradient), asked in zip(reference.sum_gradients(made, grads).items(), own_u, strict=True)
            if asked
        }
        for found, expected in zip(backend.sum_gradients(plan, cases.matrices(grads)), sums.values(), strict=True):
            assert cases.same_bits(found[: expected.shape[0]], expected)
        others, before = whole.slots_u[~own_u], cases.rows_of(backend, plan)
        others_before = backend.read_rows(others)
        backend.update(plan, cases.matrices(grads), [table.rule for table in tables], VERSION)
        after = cases.rows_of(backend, plan)
        for (table, number), gradient in sums.items():
            expected = apply_rule(
                tables[table].rule, tables[table].spec, before[table, number], gradient, VERSION & MAX_STEP
            )
            assert cases.same_bits(after[table, number], expected)
        assert (backend.read_versions(plan.slots_u) == VERSION).all()
        for left, right in zip(backend.read_rows(others), others_before, strict=True):
            np.testing.assert_array_equal(left, right)

    def test_a_row_hit_by_every_sample_is_updated_once(self, backend: Backend, random: Random) -> None:
        dims = [16, 68]
        tables = cases.tables(dims)
        made = cases.batch(random, dims, [0, 1, 1], [SUM, MEAN, SUM], 700, longest=2, spread=1)
        plan = cases.fill(backend, random, made, self.open(backend, tables))
        self.check_update(backend, plan, tables, cases.gradients(random, made), VERSION)

    def check_update(
        self, backend: Backend, plan: SlotPlan, tables: list[Table], grads: list[Floats | None], version: int
    ) -> None:
        before = cases.rows_of(backend, plan)
        backend.update(plan, cases.matrices(grads), [table.rule for table in tables], version)
        after = cases.rows_of(backend, plan)
        for (table, number), gradient in reference.sum_gradients(plan.batch, grads).items():
            step = version & MAX_STEP
            expected = apply_rule(tables[table].rule, tables[table].spec, before[table, number], gradient, step)
            assert cases.same_bits(after[table, number], expected)
        assert (backend.read_versions(plan.slots_u) == version).all()

    def test_rows_outside_the_batch_do_not_change(self, backend: Backend, random: Random) -> None:
        tables, made = cases.mixed(random, 30)
        slots = self.open(backend, tables)
        plan = cases.fill(backend, random, made, slots)
        others = slots[plan.unique.count :]
        rows = random.integers(0, 256, (others.shape[0], backend.row_bytes), dtype=np.uint8)
        backend.write_rows(others, rows, np.full(others.shape[0], 5))
        backend.update(plan, cases.matrices(cases.gradients(random, made)), [t.rule for t in tables], VERSION)
        found, versions = backend.read_rows(others)
        np.testing.assert_array_equal(found, rows)
        assert (versions == 5).all()

    # what must make no difference

    def steps(self, backend: Backend, tables: list[Table], batches: list[BatchIds], seed: int) -> list[bytes]:
        """Forward and backward over some batches: everything that comes out, with slots in random order."""
        slots, random = self.open(backend, tables), np.random.default_rng(seed)
        results: list[bytes] = []
        for step, made in enumerate(batches):
            plan = cases.fill(backend, random, made, slots)
            outs, grads = cases.poisoned_outputs(made), cases.gradients(random, made)
            backend.gather_pool(plan, [matrix for matrix in cases.matrices(outs) if matrix is not None])
            sums = backend.sum_gradients(plan, cases.matrices(grads))
            weights = backend.weight_gradients(plan, cases.matrices(grads))
            backend.update(plan, cases.matrices(grads), [table.rule for table in tables], step + 1)
            rows, versions = backend.read_rows(plan.slots_u)
            results += [out.tobytes() for out in outs]
            results += [sums.tobytes(), weights.tobytes(), rows.tobytes(), versions.tobytes()]
            backend.forget(plan.slots_u)
        return results

    def test_threads_and_slots_make_no_difference(self, make: Callable[[int], Backend], random: Random) -> None:
        tables, first = cases.mixed(random, 60)
        batches = [first, *(cases.mixed(random, 60, weighted=True)[1] for _ in range(3))]
        expected = self.steps(make(1), tables, batches, seed=1)
        for threads in (1, 2, 5):
            assert self.steps(make(threads), tables, batches, seed=1) == expected

    def test_threads_that_work_at_the_same_time_do_not_meet(
        self, make: Callable[[int], Backend], random: Random
    ) -> None:
        dims = [256]
        batches = [cases.batch(random, dims, [0], [SUM], 20_000, longest=2, spread=1500) for _ in range(3)]
        expected = self.steps(make(1), cases.tables(dims), batches, seed=1)
        assert self.steps(make(4), cases.tables(dims), batches, seed=1) == expected

    def test_callers_on_several_threads_do_not_meet(self, make: Callable[[int], Backend], random: Random) -> None:
        tables, first = cases.mixed(random, 60)
        batches = [first, *(cases.mixed(random, 60)[1] for _ in range(5))]
        backends = [make(2) for _ in range(3)]
        expected = self.steps(make(2), tables, batches, seed=1)
        with ThreadPoolExecutor(3) as lanes:
            runs = lanes.map(lambda backend: self.steps(backend, tables, batches, seed=1), backends)
            assert all(run == expected for run in runs)

    def test_one_backend_serves_several_threads(self, backend: Backend, random: Random) -> None:
        tables, made = cases.mixed(random, 60)
        plan = cases.fill(backend, random, made, self.open(backend, tables))
        rows = backend.read_rows(plan.slots_u)[0]

        def lane(number: int) -> None:
            for _ in range(20):
                if number == 0:
                    reference.check_unique(made, backend.deduplicate(made))
                elif number == 1:
                    np.testing.assert_array_equal(backend.read_rows(plan.slots_u)[0], rows)
                else:
                    np.testing.assert_array_equal(backend.locate(plan.unique.tables_u, plan.unique.ids_u), plan.slots_u)

        with ThreadPoolExecutor(3) as lanes:
            list(lanes.map(lane, range(3)))

    # misuse

    async def test_the_event_loop_may_not_call_it(self, backend: Backend, random: Random) -> None:
        tables, made = cases.mixed(random)
        slots = await asyncio.to_thread(self.open, backend, tables)
        plan = await asyncio.to_thread(cases.fill, backend, random, made, slots)
        unique, rules = plan.unique, [table.rule for table in tables]
        grads = cases.matrices(cases.gradients(random, made))
        outs = [matrix for matrix in cases.matrices(cases.poisoned_outputs(made)) if matrix is not None]
        rows, versions = await asyncio.to_thread(backend.read_rows, slots[:1])
        calls: dict[str, Callable[[], object]] = {
            "open": lambda: backend.open([table.spec for table in tables], 1),
            "deduplicate": lambda: backend.deduplicate(made),
            "locate": lambda: backend.locate(unique.tables_u, unique.ids_u),
            "admit": lambda: backend.admit(slots[-1:], unique.tables_u[:1], unique.ids_u[:1]),
            "forget": lambda: backend.forget(slots[-1:]),
            "pairs": lambda: backend.pairs(slots[:1]),
            "read_rows": lambda: backend.read_rows(slots[:1]),
            "read_rows_into": lambda: backend.read_rows_into(slots[:1], rows, rows[:, :0], versions),
            "read_versions": lambda: backend.read_versions(slots[:1]),
            "row_places": lambda: backend.row_places(slots[:1]),
            "write_rows": lambda: backend.write_rows(slots[:1], rows, versions),
            "gather_pool": lambda: backend.gather_pool(plan, outs),
            "sum_gradients": lambda: backend.sum_gradients(plan, grads),
            "weight_gradients": lambda: backend.weight_gradients(plan, grads),
            "update": lambda: backend.update(plan, grads, rules, 1),
            "keep_weights": lambda: backend.keep_weights(plan),
            "relative_change": lambda: backend.relative_change(plan, np.empty((0, 4), np.float32)),
            "encode_rows": lambda: backend.encode_rows(slots[:1], "fp32", 0),
            "find_distinct": lambda: backend.find_distinct(unique.ids_u, unique.table_start_t[None]),
            "encode_distinct": lambda: backend.encode_distinct(
                slots[:0], np.zeros(4, np.int64), ["fp32"] * 4, (0, 1), RowRoom(np.empty(0, np.uint8), 0, 0, 0)
            ),
        }
        for name, call in calls.items():
            with pytest.raises(RuntimeError, match=f"{name} was called on the event loop's thread"):
                call()

    def test_a_pool_too_large_for_memory_says_how_many_rows_would_fit(self, backend: Backend, random: Random) -> None:
        specs = [table.spec for table in cases.mixed(random)[0]]
        with pytest.raises(MemoryError, match=r"at most \d+ rows would fit"):
            backend.open(specs, 1 << 40)

    def test_closing_twice_is_allowed(self, backend: Backend, random: Random) -> None:
        self.open(backend, cases.mixed(random)[0])
        backend.close()
        backend.close()
