"""The host backend keeps the contract, and what is its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from cuda.backend import Backend
from cuda.host import HostBackend, batch
from cuda.host.backend import FEW
from cuda.host.recycle import aligned_bytes
from cuda.plan import MEAN, NONE, SUM, Matrix
from tests.contracts.backend import NUM_SLOTS, BackendContract, random
from tests.contracts.change import ChangeContract
from tests.cuda import cases, reference
from tests.cuda.cases import Random

__all__ = ["random"]


class TestHostBackend(BackendContract, ChangeContract):
    @pytest.fixture
    def make(self) -> Iterator[Callable[[int], Backend]]:
        made: list[Backend] = []

        def make(threads: int) -> Backend:
            made.append(HostBackend(threads))
            return made[-1]

        yield make
        for backend in made:
            backend.close()

    @pytest.fixture(params=[(1, FEW), (2, 0)], ids=["1 thread", "2 threads, also for few rows"])
    def backend(self, make: Callable[[int], Backend], request: pytest.FixtureRequest) -> Backend:
        threads, few = request.param
        backend = make(threads)
        assert isinstance(backend, HostBackend)
        backend.few = few
        return backend


def test_read_only_arrays_are_taken_like_any_other(random: Random) -> None:
    made = cases.batch(random, [4], [0], [SUM], 50)
    made.ids_n.flags.writeable = False
    reference.check_unique(made, HostBackend(1).deduplicate(made))


def test_a_pair_that_is_resident_cannot_be_admitted_again() -> None:
    backend = HostBackend(1)
    backend.open([table.spec for table in cases.tables([4])], 8)
    tables, ids = np.zeros(1, np.int32), np.array([5])
    backend.admit(np.array([3], np.int32), tables, ids)
    with pytest.raises(AssertionError, match="already resident"):
        backend.admit(np.array([4], np.int32), tables, ids)
    assert backend.locate(tables, ids).tolist() == [3]
    backend.close()


def test_slots_outside_the_pool_are_refused() -> None:
    backend = HostBackend(1)
    backend.open([table.spec for table in cases.tables([4])], NUM_SLOTS)
    for slot in (-1, NUM_SLOTS):
        with pytest.raises(AssertionError, match="outside 0"):
            backend.read_rows(np.array([slot], np.int32))
    backend.close()


def test_a_matrix_of_the_wrong_shape_is_refused(random: Random) -> None:
    backend = HostBackend(1)
    tables, made = cases.mixed(random, 5)
    backend.open([table.spec for table in tables], NUM_SLOTS)
    plan = cases.fill(backend, random, made, np.arange(NUM_SLOTS, dtype=np.int32))
    outs = cases.poisoned_outputs(made)
    outs[1] = outs[1][:-1]
    with pytest.raises(AssertionError, match="f1: a matrix"):
        backend.gather_pool(plan, [matrix for matrix in cases.matrices(outs) if matrix is not None])
    backend.close()


def test_large_matrices_are_written_past_the_caches_with_the_same_bits(
    random: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "PAST_CACHES_BYTES", 0)
    dims = [64, 16]
    tables, made = cases.tables(dims), cases.batch(random, dims, [0, 1, 0], [SUM, MEAN, NONE], 60, longest=2)
    backend = HostBackend(2)
    backend.open([table.spec for table in tables], NUM_SLOTS)
    plan = cases.fill(backend, random, made, np.arange(NUM_SLOTS, dtype=np.int32))
    shapes = cases.shapes(made)
    outs = [aligned_bytes(4 * rows * dim).view(np.float32).reshape(rows, dim) for rows, dim in shapes]
    for out in outs:
        out[:] = np.nan
    assert batch.describe(plan, cases.matrices(outs), np.zeros(2, np.int64)).past_caches
    backend.gather_pool(plan, [Matrix.of(out) for out in outs])
    for out, expected in zip(outs, reference.gather(made, cases.rows_of(backend, plan)), strict=True):
        assert cases.same_bits(out, expected)
    backend.close()


def test_a_backend_needs_a_thread() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        HostBackend(0)


class TestHostBackendWithThreadsForFewRows(TestHostBackend):
    """The same contract where even one row is read, written and found by the loops of many threads."""

    @pytest.fixture(autouse=True)
    def no_row_is_few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(HostBackend, "few", -1)
